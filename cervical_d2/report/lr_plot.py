"""Plot of a learning rate range test."""

from matplotlib.figure import Figure

from cervical_d2.engine.learning_rate import RangeTest
from cervical_d2.report.axes import GRAY, RGB, log_axis, panels


def rate_figure(result: RangeTest) -> Figure:
    """Batch losses, their moving average, and the two suggested rates."""
    figure, (ax,) = panels(1, 4)
    ax.plot(result.rates, result.losses, ".", color=GRAY, markersize=3, label="loss of the batch")
    ax.plot(result.rates, result.smoothed, color=RGB[1], label="moving average")
    marks = ((result.suggested(), "steepest fall"), (result.largest(), "lowest / 10"))
    for (rate, label), color, style in zip(marks, (RGB[0], RGB[2]), ("-", "--"), strict=True):
        ax.axvline(rate, color=color, linestyle=style, label=f"{label}: {rate:.2g}")
    log_axis(ax, "x", result.rates[0], result.rates[-1])
    top = 1.1 * max(result.smoothed[0], result.smoothed.min() * 2)
    ax.set_ylim(0.95 * min(result.smoothed.min(), result.losses.min()), top)
    ax.set_xlabel("learning rate")
    ax.set_ylabel("total loss")
    ax.legend()
    return figure
