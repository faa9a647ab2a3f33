"""Commands about the machine: doctor."""

import argparse

from titans_seq.cli.command import Command, without_overrides
from titans_seq.errors import InputError
from titans_seq.system.console import quiet


def _doctor(options: argparse.Namespace) -> None:
    if options.words:
        raise InputError(f"doctor takes no arguments; got {' '.join(options.words)}")
    quiet()
    from titans_seq.experiment.doctor import doctor_text

    print(doctor_text(), end="")


DOCTOR = Command(
    "doctor",
    "print versions, devices and backends, and why a backend is unavailable",
    ("doctor",),
    without_overrides,
    _doctor,
)
