"""The loss over growing learning rates, as a figure."""

from matplotlib.figure import Figure

from cervical_d2.engine.learning_rate import RangeTest
from cervical_d2.report.axes import GRAY, RGB, log_axis, panels


def rate_figure(found: RangeTest) -> Figure:
    """Losses of the batches, their moving average, and the two rates that follow from it."""
    figure, (ax,) = panels(1, 4)
    ax.plot(found.rates, found.losses, ".", color=GRAY, markersize=3, label="loss of the batch")
    ax.plot(found.rates, found.smoothed, color=RGB[1], label="moving average")
    marks = ((found.suggested(), "steepest fall"), (found.largest(), "lowest / 10"))
    for (rate, label), color, style in zip(marks, (RGB[0], RGB[2]), ("-", "--"), strict=True):
        ax.axvline(rate, color=color, linestyle=style, label=f"{label}: {rate:.2g}")
    log_axis(ax, "x", found.rates[0], found.rates[-1])
    top = 1.1 * max(found.smoothed[0], found.smoothed.min() * 2)
    ax.set_ylim(0.95 * min(found.smoothed.min(), found.losses.min()), top)
    ax.set_xlabel("learning rate")
    ax.set_ylabel("total loss")
    ax.legend()
    return figure
