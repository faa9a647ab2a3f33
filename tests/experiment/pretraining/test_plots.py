"""The figure of bits per base: every baseline is drawn, and the legend is beside the lines."""

from pathlib import Path

from matplotlib.figure import Figure

from titans_seq.experiment.pretraining.plots import plot_bits_per_base


def test_every_baseline_is_a_line_of_its_own_and_the_legend_crosses_none(tmp_path: Path, figures: list[Figure]) -> None:
    levels = {f"baseline {i}": 1.9 + i / 100 for i in range(7)}
    plot_bits_per_base(tmp_path / "a.png", bases_before=[0, 64], bits=[1.9, 1.8], levels=levels, title="t")
    (axis,) = figures[0].axes
    assert len({(line.get_linestyle(), line.get_color()) for line in axis.get_lines()}) == 8
    legend = axis.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["model", *levels]
    assert legend.get_window_extent().x0 >= axis.get_window_extent().x1
    plot_bits_per_base(tmp_path / "a.png", bases_before=[0], bits=[1.9], levels=levels, title="t")
    assert "one value" in figures[1].axes[0].get_xlabel()
