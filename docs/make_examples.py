"""Write the simulated, reproducible example files of `titans-seq example` to titans_seq/examples/.

python docs/make_examples.py
"""

import math
import random
from datetime import date, timedelta
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "titans_seq" / "examples"
STORES = {"north": ("coast", 120.0), "south": ("hills", 80.0), "west": ("coast", 150.0)}
FIRST, LAST, FUTURE_DAYS = date(2022, 1, 1), date(2023, 12, 31), 28
PROMOTION_LIFT = 0.3  # relative increase of sales by a promotion
MOTIF = "TGACTCA"  # of the sequences labelled enhancer
BASES = "ACGT"


def sales() -> dict[str, str]:
    """`sales.csv`: daily sales with weekly and yearly cycles, trend and promotions; `plans.csv`: future promotions."""
    source = random.Random(0)
    past = ["date,store,region,sales,promo,visitors"]
    plans = ["date,store,promo"]
    promotions = dict.fromkeys(STORES, 0)  # remaining days of the current promotion
    for day in range((LAST - FIRST).days + 1 + FUTURE_DAYS):
        today = FIRST + timedelta(days=day)
        week = 1 + 0.2 * math.sin(2 * math.pi * (today.weekday() - 3) / 7)
        year = 1 + 0.15 * math.cos(2 * math.pi * (today.timetuple().tm_yday - 350) / 365)
        for store, (region, level) in STORES.items():
            if promotions[store]:
                promotions[store] -= 1
            elif source.random() < 0.04:
                promotions[store] = source.randint(3, 7)
            promotion = int(promotions[store] > 0)
            demand = level * week * year * (1 + 0.0002 * day) * (1 + PROMOTION_LIFT * promotion)
            sold = demand * (1 + source.gauss(0, 0.04))
            visitors = round(2.5 * demand * (1 + source.gauss(0, 0.06)))
            if today <= LAST:
                past.append(f"{today},{store},{region},{sold:.1f},{promotion},{visitors}")
            else:
                plans.append(f"{today},{store},{promotion}")
    return {"sales.csv": text(past), "plans.csv": text(plans)}


def dna() -> dict[str, str]:
    """Sequences of two classes, one with a motif; new ones; a genome with the motif; variants in and outside it."""
    source = random.Random(0)

    def bases(length: int) -> str:
        return "".join(source.choice(BASES) for _ in range(length))

    def with_motif(sequence: str, place: int) -> str:
        return sequence[:place] + MOTIF + sequence[place + len(MOTIF) :]

    labels, regions = ["id,label,gene"], []
    for number in range(600):
        sequence, enhancer = bases(60), number % 2 == 0
        if enhancer:
            sequence = with_motif(sequence, source.randrange(10, 60 - len(MOTIF) - 10))
        labels.append(f"r{number + 1},{'enhancer' if enhancer else 'background'},gene{number // 6 + 1}")
        regions += [f">r{number + 1}", sequence]
    new = [">n1", with_motif(bases(60), 25), ">n2", bases(60)]
    genome = with_motif(bases(600), 297)
    variants = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    for number, position in enumerate((100, 298, 300, 302, 450)):  # from 1; three of them within the motif
        letter = genome[position - 1]
        other = BASES[(BASES.index(letter) + 1) % 4]
        variants.append(f"chr1\t{position}\tv{number + 1}\t{letter}\t{other}\t.\t.\t.")
    return {
        "regions.fa": text(regions),
        "labels.csv": text(labels),
        "new.fa": text(new),
        "genome.fa": text([">chr1", *(genome[i : i + 60] for i in range(0, len(genome), 60))]),
        "changes.vcf": text(variants),
    }


def text(lines: list[str]) -> str:
    """Return the lines as the content of a file."""
    return "\n".join(lines) + "\n"


def files() -> dict[str, str]:
    """Return the content of all files by their paths below `FOLDER`."""
    return {
        f"{name}/{file}": content for name, make in (("sales", sales), ("dna", dna)) for file, content in make().items()
    }


if __name__ == "__main__":
    for path, content in files().items():
        (FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / path).write_text(content)
