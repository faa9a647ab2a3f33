"""`titans-seq mutagenesis` and `variants`: effects equal the model's scores of the changed sequences."""

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.image import imread

from tests.helpers import CONFIGS, TWO_STEPS, Refuse, run_cli
from titans_seq.tasks import ClassificationTask

MOTIF = CONFIGS / "genomics" / "motif.yaml"
SMALL = ["model.dim=8", "model.num_layers=1", "model.memory.num_heads=2", "data.batch_size=16"]
SEQUENCE = "ACGTTGCANGATTCGACTTA"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of two classes; large steps give it predictions that differ between sequences."""
    folder = tmp_path_factory.mktemp("mutations")
    overrides = [*SMALL, "task.learning_rate=0.05", "task.warmup_steps=0", f"run.dir={folder / 'run'}"]
    answer = run_cli("fit", MOTIF, *TWO_STEPS, *overrides)
    assert answer.status == 0, answer.err
    return folder / "run" / "checkpoints" / "best.ckpt"


def motif_scores(checkpoint: Path, text: str) -> tuple[float, float]:
    """Probability and log-odds of the class motif, computed by the task."""
    task = ClassificationTask.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval()
    tokens = torch.tensor([["ACGTN".index(letter) for letter in text]])
    with torch.inference_mode():
        scores = task(tokens, torch.ones_like(tokens, dtype=torch.bool))[0].double()
    return float(scores.softmax(dim=0)[1]), float(scores[1] - scores[0])


def write_genome(folder: Path) -> dict[str, str]:
    rng = np.random.default_rng(8)
    genome = {f"chr{k}": "".join(rng.choice(list("ACGT"), size=80)) for k in (1, 2)}
    (folder / "genome.fa").write_text("".join(f">{name}\n{text}\n" for name, text in genome.items()))
    return genome


def write_vcf(path: Path, *rows: tuple[object, ...]) -> Path:
    head = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT"]
    text = "\n".join([*head, *("\t".join(map(str, row)) for row in rows)]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_every_single_nucleotide_variant_is_scored(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "two.fa").write_text(f">other\nACGT\n>mine\n{SEQUENCE}\n")
    out = tmp_path / "changes.csv"
    answer = run_cli("mutagenesis", checkpoint, "--input", tmp_path / "two.fa", "--record", "mine", "--out", out)
    assert answer.status == 0, answer.err
    table = pl.read_csv(out)
    wanted = [(i + 1, old, new) for i, old in enumerate(SEQUENCE) for new in "ACGT" if new != old]
    assert table.select("position", "reference", "alternative").rows() == wanted
    _, before = motif_scores(checkpoint, SEQUENCE)
    for row in table.iter_rows(named=True):
        place = row["position"] - 1
        probability, after = motif_scores(checkpoint, SEQUENCE[:place] + row["alternative"] + SEQUENCE[place + 1 :])
        assert row["probability_motif"] == pytest.approx(probability, abs=1e-5)
        assert row["effect_motif"] == pytest.approx(after - before, abs=1e-5)
        assert row["effect_background"] == pytest.approx(before - after, abs=1e-5)
    assert table["effect_motif"].abs().max() > 1e-3, (
        "a model with constant predictions would make the comparison trivial"
    )
    assert imread(tmp_path / "changes.png")[..., :3].std() > 0.05
    assert {path.name for path in tmp_path.iterdir()} == {"two.fa", "changes.csv", "changes.png"}


def test_record_selection_errors(checkpoint: Path, refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "two.fa").write_text(">one\nACGT\n>two\nACGT\n")
    line = refuse("mutagenesis", checkpoint, "--input", tmp_path / "two.fa")
    assert "two.fa: 2 sequences; choose one with --record: one, two" in line
    assert "no sequence 'x'" in refuse("mutagenesis", checkpoint, "--input", tmp_path / "two.fa", "--record", "x")


def test_variants_are_scored_in_their_windows(checkpoint: Path, tmp_path: Path) -> None:
    genome = write_genome(tmp_path)
    first, second = genome["chr1"], genome["chr2"]
    new = {"A": "C", "C": "G", "G": "T", "T": "A"}
    rows = [
        ("chr1", 41, "snv", first[40], f"{new[first[40]]},<DEL>,*,G]chr1:7],."),
        ("chr2", 11, "deletion", second[10:13], second[10]),
        ("chr2", 31, "insertion", second[30].lower(), f"{second[30]}GATTC"),
        ("chr1", 2, "edge", first[1], new[first[1]]),
    ]
    vcf = write_vcf(tmp_path / "variants.vcf.gz", *rows)
    arguments = [
        "--vcf",
        vcf,
        "--reference",
        tmp_path / "genome.fa",
        "--out",
        tmp_path / "out.parquet",
        "data.length=20",
    ]
    answer = run_cli("variants", checkpoint, *arguments)
    assert answer.status == 0, answer.err
    assert "4 alternatives that are not bases" in answer.out
    table = pl.read_parquet(tmp_path / "out.parquet")
    assert table["id"].to_list() == ["snv", "deletion", "insertion", "edge"]
    # Expected windows: 20 bases, the longer allele in the middle; N beyond the chromosome's start.
    pairs = [
        (first[31:51], first[31:40] + new[first[40]] + first[41:51]),
        (second[2:22], second[2:11] + second[13:24]),
        (second[23:43], second[23:31] + "GATTC" + second[31:38]),
        ("N" * 8 + first[:12], "N" * 8 + first[0] + new[first[1]] + first[2:12]),
    ]
    assert all(len(window) == 20 for pair in pairs for window in pair)
    for row, (reference, alternative) in zip(table.iter_rows(named=True), pairs, strict=True):
        (before, odds_before), (after, odds_after) = (
            motif_scores(checkpoint, reference),
            motif_scores(checkpoint, alternative),
        )
        assert row["reference_motif"] == pytest.approx(before, abs=1e-5), row["id"]
        assert row["alternative_motif"] == pytest.approx(after, abs=1e-5), row["id"]
        assert row["effect_motif"] == pytest.approx(odds_after - odds_before, abs=1e-5), row["id"]


def test_variants_that_do_not_match_the_reference_are_errors(checkpoint: Path, refuse: Refuse, tmp_path: Path) -> None:
    first = write_genome(tmp_path)["chr1"]
    wrong = "A" if first[9] != "A" else "C"
    good, arguments = first[5], ["--reference", tmp_path / "genome.fa"]
    cases = {
        "other base": ([("chr1", 6, ".", good, "N"), ("chr1", 10, ".", wrong, "G")], "line 4: REF is"),
        "other names": ([("1", 6, ".", good, "N")], "data.aliases=true"),
        "beyond the end": ([("chr1", 500, ".", "A", "G")], "beyond"),
        "one beyond the end": ([("chr1", 81, ".", "N", "G")], "beyond"),
        "no reference": ([("chr1", 6, ".", "", "G")], "line 3"),
        "no variants": ([("chr1", 6, ".", good, "<DUP>")], "no variants; 1 symbolic alternatives"),
        "two alleles": (
            [("chr1", 6, ".", good, "A/C")],
            "line 3: ALT is 'A/C'; expected A, C, G, T and N, <...>, *, .",
        ),
        "a dash": ([("chr1", 6, ".", good, "-")], "line 3: ALT is '-'"),
        "nothing between commas": ([("chr1", 6, ".", good, "N,,A")], "line 3: ALT is 'N,,A'"),
        "no position": ([("chr1", "x", ".", good, "A")], "line 3"),
    }
    for rows, part in cases.values():
        line = refuse(
            "variants", checkpoint, "--vcf", write_vcf(tmp_path / "a.vcf", *rows), *arguments, "data.length=20"
        )
        assert part in line
    vcf = write_vcf(tmp_path / "a.vcf", ("chr1", 6, ".", good, "N"))
    assert "data.length must be set" in refuse("variants", checkpoint, "--vcf", vcf, *arguments)


def test_vcf_encodings_and_line_endings(checkpoint: Path, tmp_path: Path) -> None:
    first = write_genome(tmp_path)["chr1"]
    rows = [f"chr1\t{place + 1}\tÅ{place}\t{first[place]}\tN\t.\tPASS\tGENE=Ångström\x85" for place in (5, 9)]
    (tmp_path / "a.vcf").write_bytes("\r\n".join(["\ufeff##fileformat=VCFv4.2", *rows]).encode())
    arguments = ["--vcf", tmp_path / "a.vcf", "--reference", tmp_path / "genome.fa", "--out", tmp_path / "a.csv"]
    answer = run_cli("variants", checkpoint, *arguments, "data.length=20")
    assert answer.status == 0, answer.err
    assert pl.read_csv(tmp_path / "a.csv")["id"].to_list() == ["Å5", "Å9"]


def test_variant_effects_average_both_strands_by_default(checkpoint: Path, tmp_path: Path) -> None:
    first = write_genome(tmp_path)["chr1"]
    vcf = write_vcf(tmp_path / "a.vcf", ("chr1", 40, ".", first[39], "N"))
    arguments = ["variants", checkpoint, "--vcf", vcf, "--reference", tmp_path / "genome.fa", "data.length=20", "--out"]
    trained_on_one = torch.load(checkpoint, weights_only=True)
    trained_on_one["hyper_parameters"]["config"]["model"]["strand"] = "one"
    torch.save(trained_on_one, tmp_path / "one.ckpt")
    scores = []
    for ckpt, more in ((checkpoint, []), (tmp_path / "one.ckpt", []), (tmp_path / "one.ckpt", ["model.strand=one"])):
        answer = run_cli("variants", ckpt, *arguments[2:], tmp_path / "a.csv", *more)
        assert answer.status == 0, answer.err
        assert ("reads one strand; variants are scored by the mean of both" in answer.out) == (len(scores) == 1)
        scores.append(pl.read_csv(tmp_path / "a.csv")["reference_motif"].item())
    assert scores[0] == scores[1] != scores[2]


def test_alleles_longer_than_the_window(checkpoint: Path, refuse: Refuse, tmp_path: Path) -> None:
    first = write_genome(tmp_path)["chr1"]
    whole, deletion = ("chr1", 31, "20", first[30:50], first[30]), ("chr1", 31, "21", first[30:51], first[30])
    insertion = ("chr1", 40, "more", first[39], first[39] + "ACGT" * 5)
    vcf = write_vcf(tmp_path / "a.vcf", whole, deletion, insertion, ("chr1", 6, "snv", first[5], "N"))
    arguments = ["--reference", tmp_path / "genome.fa", "data.length=20"]
    assert "set data.length=12 or less" in refuse(
        "variants", checkpoint, "--vcf", vcf, *arguments, "data.max_length=12"
    )
    answer = run_cli("variants", checkpoint, "--vcf", vcf, *arguments, "--out", tmp_path / "a.csv")
    assert answer.status == 0, answer.err
    assert "2 alternatives are skipped: REF or ALT is longer than data.length=20" in answer.out
    table = pl.read_csv(tmp_path / "a.csv")
    assert table["id"].to_list() == ["20", "snv"]
    assert table["reference_motif"][0] == pytest.approx(motif_scores(checkpoint, first[30:50])[0], abs=1e-5)
    after = motif_scores(checkpoint, first[30] + first[50:69])[0]
    assert table["alternative_motif"][0] == pytest.approx(after, abs=1e-5)
    vcf = write_vcf(tmp_path / "a.vcf", deletion, insertion)
    line = refuse("variants", checkpoint, "--vcf", vcf, *arguments)
    assert "line 3: REF or ALT has 21 letters, more than the window of data.length=20, as in all 2 variants" in line


def test_ambiguous_iupac_letters_are_counted(checkpoint: Path, refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "genome.fa").write_text(f">chr1\n{'ACGT' * 5}RYACGTACGT\n")
    arguments = ["--reference", tmp_path / "genome.fa", "data.length=10"]
    # The VCF specification requires the first of the bases of R (A or G) as REF; N is accepted too.
    vcf = write_vcf(tmp_path / "a.vcf", ("chr1", 21, ".", "A", "G"), ("chr1", 21, ".", "N", "G"))
    answer = run_cli("variants", checkpoint, "--vcf", vcf, *arguments, "--out", tmp_path / "a.csv")
    assert answer.status == 0, answer.err
    assert "genome.fa: 2 IUPAC letters in the windows around the variants were read as N" in answer.out
    table = pl.read_csv(tmp_path / "a.csv")
    assert table["reference_motif"][0] == pytest.approx(motif_scores(checkpoint, "ACGTANACGT")[0], abs=1e-5)
    assert table["reference_motif"][1] == pytest.approx(motif_scores(checkpoint, "ACGTNNACGT")[0], abs=1e-5)
    # A letter that only the longer reference window of a deletion contains.
    vcf = write_vcf(tmp_path / "a.vcf", ("chr1", 13, ".", "ACGT", "A"))
    answer = run_cli("variants", checkpoint, "--vcf", vcf, *arguments, "--out", tmp_path / "a.csv")
    assert "genome.fa: 2 IUPAC letters" in answer.out, answer.err
    vcf = write_vcf(tmp_path / "a.vcf", ("chr1", 21, ".", "G", "A"))
    assert "REF is 'G', but" in refuse("variants", checkpoint, "--vcf", vcf, *arguments)
    (tmp_path / "one.fa").write_text(">one\nACGRTACGT\n")
    answer = run_cli("mutagenesis", checkpoint, "--input", tmp_path / "one.fa", "--out", tmp_path / "one.csv")
    assert "one.fa: 1 IUPAC letters other than A, C, G, T, N were read as N" in answer.out


def test_mutagenesis_does_not_depend_on_the_block_size(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.fa").write_text(f">mine\n{SEQUENCE}\n")
    tables = []
    for bases in (1 << 24, 7 * len(SEQUENCE) + 3, 1):
        monkeypatch.setattr("titans_seq.experiment.classification.variant_effects._BLOCK", bases)
        out = tmp_path / f"{bases}.parquet"
        assert run_cli("mutagenesis", checkpoint, "--input", tmp_path / "mine.fa", "--out", out).status == 0
        tables.append(pl.read_parquet(out))
    for table in tables[1:]:
        for name, column in table.to_dict().items():
            expected = tables[0][name]
            assert np.allclose(column, expected, atol=1e-5) if column.dtype.is_float() else column.equals(expected)


def test_variant_effects_do_not_depend_on_the_block_size(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_genome(tmp_path)["chr1"]
    vcf = write_vcf(tmp_path / "a.vcf", *(("chr1", i + 1, f"v{i}", first[i], "N") for i in range(10, 21)))
    arguments = ["--vcf", vcf, "--reference", tmp_path / "genome.fa", "data.length=20"]
    tables = []
    for bases in (1 << 24, 45, 1):
        monkeypatch.setattr("titans_seq.experiment.classification.variant_effects._BLOCK", bases)
        out = tmp_path / f"{bases}.parquet"
        assert run_cli("variants", checkpoint, *arguments, "--out", out).status == 0
        tables.append(pl.read_parquet(out))
    assert tables[0]["id"].to_list() == [f"v{i}" for i in range(10, 21)]
    for table in tables[1:]:
        assert table["id"].equals(tables[0]["id"])
        assert np.allclose(table["effect_motif"], tables[0]["effect_motif"], atol=1e-5)


def test_input_files_are_not_overwritten(checkpoint: Path, refuse: Refuse, tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("sequence\nACGTACGT\n")
    for command in ("predict", "mutagenesis"):
        answer = run_cli(command, checkpoint, "--input", mine, "--out", tmp_path / "." / "mine.csv")
        assert answer.status == 2
        assert "is an input of this command" in answer.err
    labelled = tmp_path / "labelled.csv"
    labelled.write_text("sequence,label\n" + "ACGTACGT,motif\nACGTACGA,background\n" * 20)
    answer = run_cli("predict", checkpoint, f"data.name={labelled}", "--out", labelled)
    assert (answer.status, labelled.read_text()[:14]) == (2, "sequence,label")
    assert mine.read_text() == "sequence\nACGTACGT\n"


def test_record_names_are_not_mathtext_and_output_must_be_a_table(
    checkpoint: Path, refuse: Refuse, tmp_path: Path
) -> None:
    (tmp_path / "a.fa").write_text(">a$x_$ first\nACGTACGT\n>twice\nACGT\n>twice\nACGA\n")
    arguments = ["mutagenesis", checkpoint, "--input", tmp_path / "a.fa"]
    answer = run_cli(*arguments, "--record", "a$x_$", "--out", tmp_path / "a.csv")
    assert answer.status == 0, answer.err
    assert (tmp_path / "a.png").is_file()
    assert "2 sequences are named 'twice'" in refuse(*arguments, "--record", "twice")
    one = [*arguments, "--record", "a$x_$"]
    for name in ("m.png", "m.csv.gz", "m.tsv"):
        assert "ends in .csv or .parquet" in refuse(*one, "--out", tmp_path / name)
    (tmp_path / "b.png").mkdir()
    assert "is a folder" in refuse(*one, "--out", tmp_path / "b.csv")
    assert not (tmp_path / "b.csv").exists()


def test_mutagenesis_does_not_support_forecasters(refuse: Refuse, tmp_path: Path) -> None:
    from tests.experiment.run.test_checkpoints import save_checkpoint

    path = save_checkpoint(tmp_path / "small.ckpt")
    source = tmp_path / "x.fa"
    source.write_text(">x\nACGT\n")
    assert "task.name=forecasting is not supported here; task.name=classification is" in refuse(
        "mutagenesis", path, "--input", source
    )
