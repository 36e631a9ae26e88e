"""Losses of a sweep's arms over training and over the position in the context."""
from report import sweep_charts as charts, svg
from report.sweep_data import figure

NATS = "nats per token"


def minus_reference(sweep, lines):
    """Every arm's line minus its reference's, at the points that both have."""
    by_name = {s["name"]: dict(s["points"]) for s in lines}
    out = []
    for s in lines:
        base = by_name.get(sweep.reference(s["name"]))
        if base and s["name"] != sweep.reference(s["name"]):
            out.append(dict(s, points=[(x, y - base[x]) for x, y in s["points"] if x in base]))
    return out


def difference_chart(sweep, lines, x_label, what, skip=0.0):
    """skip: share of the x range left out at its beginning, where differences are those of a start."""
    lines = minus_reference(sweep, lines)
    last = max((x for s in lines for x, _ in s["points"]), default=0)
    lines = [dict(s, points=[p for p in s["points"] if p[0] >= skip * last]) for s in lines]
    lines = [s for s in lines if len(s["points"]) > 1]
    if not lines:
        return ""
    references = list(dict.fromkeys(sweep.reference(s["name"]) for s in lines))
    of = references[0] if len(references) == 1 else "the arm it is compared with"
    return svg.line_chart(lines, x_label, NATS, f"{what}, difference from {of}", markers=True)


def curve_section(sweep):
    text = ""
    train = sweep.series(sweep.train_points)
    if train:
        text += figure(svg.line_chart(train, "training tokens", f"training loss, {NATS}", "Training loss"),
                       "Each point is the mean over neighbouring steps and over the seeds.")
        close = difference_chart(sweep, sweep.series(lambda r: sweep.train_points(r, 20)), "training tokens", "Training loss", skip=0.3)
        if close:
            text += figure(close, "Where curves lie on top of each other: the same losses minus those of the arm that each is compared with, in means over a twentieth of the run, "
                           "without the first third. Arms of one seed see the same data, so most of their noise cancels. Below zero is better.")
    evaluations = sweep.series(sweep.eval_points)
    if evaluations:
        text += figure(svg.line_chart(evaluations, "training tokens", f"validation loss, {NATS}", "Validation loss", markers=True),
                       "Mean over the seeds at every evaluation.")
        close = difference_chart(sweep, evaluations, "training tokens", "Validation loss")
        if close:
            text += figure(close, "The same, as differences. Below zero is better than the arm compared with.")
        text += flops_charts(sweep)
    return text


def flops_charts(sweep):
    """Against both counts of FLOPs; arms of one size do not differ by 6ND, and that chart would be the one over tokens."""
    text = ""
    for count, label in (("flops_6nd", "6ND"), ("flops_with_attention", "attention counted")):
        if count == "flops_6nd" and sweep.one_size():
            continue
        lines = [dict(s, joined=True) for s in sweep.series(lambda r, c=count: sweep.flops_points(r, c))]
        text += figure(charts.flops_chart(f"Validation loss against FLOPs of the run so far ({label})", lines, [], "PFLOP/s-days", NATS),
                       "The further to the left a curve lies, the less computing it took to reach a loss.")
    return text


def position_section(sweep):
    lines = sweep.series(sweep.position_points)
    if not lines:
        return ""
    x_label = "position in the context, tokens"
    text = figure(svg.line_chart(lines, x_label, f"validation loss, {NATS}", "Validation loss by position", markers=True),
                  "Tokens late in a window have more context to draw on; blocks that are not read would be missed there. Mean over the seeds.")
    close = difference_chart(sweep, lines, x_label, "Validation loss by position")
    if close:
        text += figure(close, "The same, as differences: a line that rises to the right loses with distance.")
    return text
