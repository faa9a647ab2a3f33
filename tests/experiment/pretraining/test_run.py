"""Pre-training runs: resuming, corpora, and incompatible options."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from matplotlib.image import imread

from datamodules.dna.datasets.gue import GUE
from datamodules.dna.pretraining.corpus import LoadedCorpus
from tests.datamodules.dna.dna_reference import random_dna, write_fasta
from tests.experiment.classification.test_transfer import changed
from tests.experiment.dna import DDP, GENOMICS, MOTIF, PRETRAIN, SMALL, weights
from tests.experiment.running import fit
from tests.helpers import TWO_STEPS, Refuse, run_cli
from titans_seq.config import load_config
from titans_seq.experiment.pretraining.experiment import PretrainingExperiment
from titans_seq.schema import PretrainingConfig
from titans_seq.system.checkpoint_files import read_checkpoint, write_checkpoint

MASKED = ["task.objective=masked", "model.direction=both", "data.segment=64", "data.stream_length=64"]


def test_results_of_a_run(forward: Path) -> None:
    results = json.loads((forward / "results.json").read_text())
    assert 1.9 < results["test/bits_per_base"] < 4
    assert results["test/perplexity"] == pytest.approx(2 ** results["test/bits_per_base"], rel=1e-5)
    assert results["best_val/bits_per_base"] > 1.9
    levels = results["baselines"]
    bits = [level["test/bits_per_base"] for level in levels.values()]
    assert next(iter(levels)) == "frequencies of bases"
    assert "counts given 8 bases before" in levels
    assert 1.9 < bits[0] < 2
    assert results["best_possible_bits_per_base"] < bits[1] < bits[0] - 0.05, "two preceding bases must be informative"
    assert imread(forward / "plots" / "bits.png")[..., :3].std() > 0.05
    same = "trainer.limit_batches=2"
    answer = run_cli("test", forward / "checkpoints" / "best.ckpt", same)
    assert answer.out.split()[:2] == ["test/bits_per_base", f"{results['test/bits_per_base']:.4f}"], answer.err


def interrupt_and_resume(
    config: Path, folder: Path, *overrides: str, meanwhile: Callable[[Path], None] = lambda folder: None
) -> dict[str, Any]:
    """Interrupt the run `folder` at step 6, resume it, and return the checkpoint that it resumed from.

    `meanwhile` is called with the folder between the interruption and resuming.
    """
    step, calls = torch.optim.AdamW.step, 0

    def fail(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise RuntimeError("simulated power failure")
        return step(*arguments, **options)

    again = ["fit", config, *TWO_STEPS, *overrides, f"run.dir={folder}"]
    with mock.patch.object(torch.optim.AdamW, "step", fail), pytest.raises(RuntimeError, match="power"):
        run_cli(*again, cwd=folder.parent)
    last: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3
    meanwhile(folder)
    assert run_cli(*again, "resume=auto", cwd=folder.parent).status == 0
    return last


SEVEN_STEPS = ["trainer.max_steps=7", "trainer.limit_batches=7", "trainer.checkpoint_steps=3"]


def test_run_interrupted_within_a_stream_resumes_exactly(tmp_path: Path) -> None:
    overrides = [*SMALL, *SEVEN_STEPS]
    fit(PRETRAIN, tmp_path / "whole", *overrides)
    (process,) = interrupt_and_resume(PRETRAIN, tmp_path / "cut", *overrides)["resume"]["processes"]
    assert process["task"], "the run must be interrupted within a stream"
    assert changed(tmp_path / "cut", "last", weights(tmp_path / "whole", "last")) == set()
    results = [json.loads((tmp_path / run / "results.json").read_text()) for run in ("cut", "whole")]
    assert results[0]["test/bits_per_base"] == results[1]["test/bits_per_base"]


def rename_stream_length_to_stretch(folder: Path) -> None:
    """Rewrite a run's configuration and checkpoint with `data.stretch`, the former name of `data.stream_length`."""
    file, checkpoint = folder / "config.yaml", folder / "checkpoints" / "last.ckpt"
    text = file.read_text()
    assert text.count("stream_length: 2048") == 1
    file.write_text(text.replace("stream_length: 2048", "stretch: 2048"))
    content = read_checkpoint(checkpoint)
    data = content["hyper_parameters"]["config"]["data"]
    data["stretch"] = data.pop("stream_length")
    write_checkpoint(content, checkpoint)


def test_run_with_a_former_key_name_resumes_exactly(tmp_path: Path) -> None:
    overrides = [*SMALL, *SEVEN_STEPS]
    fit(PRETRAIN, tmp_path / "whole", *overrides)
    interrupt_and_resume(PRETRAIN, tmp_path / "cut", *overrides, meanwhile=rename_stream_length_to_stretch)
    assert len(list(tmp_path.glob("*/checkpoints/last.ckpt"))) == 2
    assert changed(tmp_path / "cut", "last", weights(tmp_path / "whole", "last")) == set()
    rename_stream_length_to_stretch(tmp_path / "whole")  # a finished run
    last = tmp_path / "whole" / "checkpoints" / "last.ckpt"
    assert run_cli("test", last, "trainer.limit_batches=1", cwd=tmp_path).status == 0


@pytest.mark.parametrize("freezing", ["task.unfreeze=head", "task.frozen_blocks=1"])
def test_frozen_weights_stay_frozen_after_resuming_within_an_epoch(tmp_path: Path, freezing: str) -> None:
    overrides = [*SMALL, *SEVEN_STEPS, freezing, "model.dropout=0.5", "task.weight_decay=0.5"]
    fit(MOTIF, tmp_path / "whole", *overrides)
    interrupt_and_resume(MOTIF, tmp_path / "cut", *overrides)
    assert changed(tmp_path / "cut", "last", weights(tmp_path / "whole", "last")) == set()


def test_pretraining_does_not_support_predict(forward: Path, refuse: Refuse) -> None:
    (forward / "a.fa").write_text(">a\nACGT\n")
    for arguments in ([], ["--input", forward / "a.fa"]):
        assert "model.pretrained" in refuse("predict", forward / "checkpoints" / "best.ckpt", *arguments)


@pytest.mark.parametrize("overrides", [[], MASKED], ids=["next", "masked"])
def test_a_genome_of_chromosomes(tmp_path: Path, overrides: list[str]) -> None:
    texts = random_dna([700, 300, 400], seed=2, letters="ACGTacgtN")
    genome = write_fasta(tmp_path / "genome.fa", {f"chr{i + 1}": text for i, text in enumerate(texts)}, width=60)
    held = ["data.validation_records=[chr2]", "data.test_records=[chr3]", f"data.name={genome}"]
    results = fit(
        PRETRAIN, tmp_path / "run", *SMALL, *held, *overrides, "data.stream_length=null" if not overrides else "seed=1"
    ).results
    assert results["bases"] == {"train": 700, "validation": 300, "test": 400}
    side = "bases before" if not overrides else "bases on either side"
    assert any(side in name for name in results["baselines"])


def test_tables_are_joined_without_duplicates(tmp_path: Path) -> None:
    texts = random_dna([30] * 50, seed=3)
    for name, part in (("a", texts[:30]), ("b", texts[25:])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["dna", *part]) + "\n")
    overrides = [f"data.name={tmp_path / 'a.csv'}", f"data.also=[{tmp_path / 'b.csv'}]", "data.sequence=dna"]
    _, results, printed, _ = fit(PRETRAIN, tmp_path / "run", *SMALL, *MASKED, *overrides)
    assert sum(results["bases"].values()) == 50 * 30
    assert "5 of 55 sequences are duplicates of others, on either strand; left out" in printed


def test_excluded_sequences_are_left_out_on_either_strand(tmp_path: Path, refuse: Refuse) -> None:
    texts = random_dna([30] * 50, seed=3)
    other_strands = [text.translate(str.maketrans("ACGT", "TGCA"))[::-1] for text in texts[5:9]]
    write_fasta(tmp_path / "all.fa", {f"r{i}": text for i, text in enumerate(texts)})
    for name, part in (("all", texts), ("held", [*texts[:5], *other_strands, "A" * 30])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["sequence", *part]) + "\n")
    exclude = f"data.exclude=[{tmp_path / 'held.csv'}]"
    overrides = [f"data.name={tmp_path / 'all.csv'}", exclude]
    _, results, printed, _ = fit(PRETRAIN, tmp_path / "run", *SMALL, *MASKED, *overrides)
    assert results["records"] == 41
    assert "all.csv: 9 of 50 sequences are identical to ones in data.exclude; left out" in printed
    overrides[0] = f"data.name={tmp_path / 'all.fa'}"
    _, results, printed, _ = fit(PRETRAIN, tmp_path / "mapped", *SMALL, *MASKED, *overrides)
    assert results["records"] == 41
    assert "all.fa: 9 of 50 sequences are identical to ones in data.exclude; left out" in printed
    nothing = f"data.exclude=[{tmp_path / 'all.csv'}]"
    assert "sequences are in data.exclude: none is left to train on" in refuse("fit", PRETRAIN, overrides[0], nothing)


def test_gue_pretraining_uses_training_rows_only(tmp_path: Path, data_root: Path) -> None:
    overrides = ["data.name=mouse/2", "data.also=[]", f"data.root={data_root}", "model.dim=8", "data.batch_size=8"]
    results = fit(GENOMICS / "gue_pretrain.yaml", tmp_path / "run", *overrides).results
    assert results["data"] == "mouse/2 (train)"
    assert sum(results["bases"].values()) <= 2620 * 101


def test_gue_pretraining_excludes_dev_and_test_rows_of_all_tasks(data_root: Path) -> None:
    """Nine tenths of the dev rows of prom_core_notata are training rows of prom_core_all."""
    overrides = ["data.name=prom/prom_core_notata", "data.also=[]", f"data.root={data_root}"]
    config = load_config([GENOMICS / "gue_pretrain.yaml"], overrides)
    assert isinstance(config, PretrainingConfig)
    corpus = PretrainingExperiment(config).data.corpus
    assert isinstance(corpus, LoadedCorpus)
    seen = set(corpus.sequences.texts())
    assert len(seen) > 30_000
    for task in ("prom/prom_core_all", "prom/prom_core_notata"):
        splits = GUE(task, str(data_root)).load()
        for rows in (splits.validation, splits.test):
            assert rows is not None
            assert seen.isdisjoint(rows.sequences.texts())


def test_split_without_target_bases_is_an_error(tmp_path: Path) -> None:
    lone = write_fasta(tmp_path / "lone.fa", {"a": "ACGTACGT", "b": "A", "c": "C"})
    short = write_fasta(tmp_path / "short.fa", {name: "ACGTACGT"[i:] for i, name in enumerate("abc")})
    held = ["data.validation_records=[b]", "data.test_records=[c]"]
    nothing = "every base after the first 4 of each stream is N, or there is none"
    cases = {
        f"lone.fa: validation: {nothing}": [f"data.name={lone}"],
        "task.masked_share=1e-06 masked none of so few bases": [
            f"data.name={short}",
            "task.masked_share=1e-6",
            *MASKED,
        ],
    }
    for part, overrides in cases.items():
        answer = run_cli("fit", PRETRAIN, *TWO_STEPS, *SMALL, *held, *overrides, cwd=tmp_path)
        assert answer.status == 2
        assert part in answer.err


def test_incompatible_keys(refuse: Refuse) -> None:
    cases = {
        "model.direction=both": "both would see the bases to predict; task.objective=next requires forward",
        "task.objective=masked": "must equal data.segment with task.objective=masked",
        "data.stream_length=100": "100 must be at least data.segment=256",
        "model.stride=3 model.stem_width=3": "256 must be a multiple of model.stride=3",
        "trainer.devices=2 trainer.strategy=ddp": DDP,
        "model.variant=ttt_mlp trainer.devices=2 trainer.strategy=ddp": DDP,
        "data.unit=end data.validation_records=[a]": "has no effect with data.unit=end, which holds out the ends",
        "data.name=nowhere.fa": "nowhere.fa: no such file or published dataset",
        "data.name=nowhere": "no published dataset, and no file of sequences",
    }
    for overrides, part in cases.items():
        assert part in refuse("fit", PRETRAIN, *overrides.split())


def test_models_without_learned_initial_state_support_ddp() -> None:
    for override in ("model.variant=transformer", "model.variant=mamba2", "model.memory.initial=zero"):
        answer = run_cli("show-config", PRETRAIN, override, "trainer.devices=2", "trainer.strategy=ddp")
        assert answer.status == 0, answer.err
