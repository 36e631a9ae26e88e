"""A sweep beside a paper: the plot over block granularity and the scaling laws, with the published figures."""
from report import sweep_charts as charts
from report.sweep_data import METRICS, PETAFLOP_DAY, esc, figure, spread, table, with_interval

NATS = "nats per token"


def span(points, baseline):
    values = [v for _, vs in points for v in vs] + (baseline[1] if baseline else [])
    return max(values) - min(values)


def level_panels(points, printed, baseline, printed_baseline, published, metric):
    """Levels differ, so both panels show the same span."""
    least = 1.15 * max(span(points, baseline), span(printed, printed_baseline), 0.02)
    theirs = "published, read off the figure" if "read off" in published["source"] else "published"
    return (charts.category_chart("this sweep", points, baseline, published["x_label"], METRICS[metric], charts.colour(0), least_span=least)
            + charts.category_chart(theirs, printed, printed_baseline, published["x_label"], METRICS[metric], charts.colour(1), least_span=least))


def difference_panels(points, printed, label, published):
    """On one axis."""
    zero = (label, [0.0])
    values = [v for _, vs in points + printed for v in vs] + [0.0]
    pad = max(0.1 * (max(values) - min(values)), 0.002)
    limits = (min(values) - pad, max(values) + pad)
    return (charts.category_chart(f"this sweep, minus {label}", points, zero, published["x_label"], "nats, pairs of one seed", charts.colour(0), limits=limits)
            + charts.category_chart(f"published, minus {label}", printed, zero, published["x_label"], NATS, charts.colour(1), limits=limits))


def granularity_section(sweep):
    published = sweep.data.get("published", {})
    if not published.get("points"):
        return ""
    key, base = published["metric"], published.get("baseline")
    points = [(p["label"], sweep.values(p["arm"], key)) for p in published["points"] if sweep.values(p["arm"], key)]
    if not points:
        return ""
    baseline = (base["label"], sweep.values(base["arm"], key)) if base and sweep.values(base["arm"], key) else None
    printed = [(p["label"], [p["value"]]) for p in published["points"]]
    text = figure(f"<div class=pair>{level_panels(points, printed, baseline, (base['label'], [base['value']]) if base else None, published, key)}</div>",
                  "Filled dots: means over the seeds; open dots beside them: single seeds, the bar is their range. Dashed: the baseline, its grey band the range over seeds. "
                  "Model, data and number of tokens differ from the paper's: compare shapes, not levels. Both axes span equally much.")

    def against_baseline(arm):
        return [a[key] - b[key] for a in sweep.runs(arm) for b in sweep.runs(base["arm"]) if a["seed"] == b["seed"] and None not in (a[key], b[key])] if base else []

    if baseline:
        differences = [(p["label"], against_baseline(p["arm"])) for p in published["points"] if against_baseline(p["arm"])]
        text += figure(f"<div class=pair>{difference_panels(differences, [(p['label'], [p['value'] - base['value']]) for p in published['points']], base['label'], published)}</div>",
                       f"Minus {esc(base['label'])}, on one axis. Ours are differences of runs with the same seed, which vary less than levels do.")
    rows = []
    for p in published["points"] + ([base] if base else []):
        against = against_baseline(p["arm"])
        other = base and p is not base
        rows.append([esc(p["label"]), spread(sweep.values(p["arm"], key)), spread(against) if other else "", f"{p['value']:.3f}",
                     f"{p['value'] - base['value']:+.3f}" if other else ""])
    head = ["", "ours", "ours minus baseline" if base else "", "published", "published minus baseline" if base else ""]
    return text + table(head, rows) + f"<p class=faint>Published: {esc(published['source'])}.</p>"


def fit_chart(sweep, fits, groups, published, count, label):
    series, laws = [], []
    column = "flops_6nd" if count == "6nd" else "flops_with_attention"
    for i, group in enumerate(groups):
        points = sorted((r[column] / PETAFLOP_DAY, r["eval_loss"]) for r in sweep.finished if r["group"] == group and r["eval_loss"] is not None)
        series.append({"name": group or "all", "points": points, "colour": charts.colour(i)})
        for f in fits:
            if f["group"] == group and f["flops"] == count:
                e = f.get("irreducible", 0.0)
                laws.append({"at": lambda c, f=f, e=e: e + f["a"] * c ** f["b"], "colour": charts.colour(i), "dash": "1.5 3" if "irreducible" in f else ""})
        if count == "6nd" and group in published:
            f = published[group]
            laws.append({"at": lambda c, f=f: f["a"] * c ** f["b"], "colour": charts.colour(i), "dash": "7 4", "name": f"published, {group}"})
    return charts.flops_chart(f"Validation loss against compute ({label})", series, laws, "PFLOP/s-days", NATS)


def fit_section(sweep):
    fits = [f for f in sweep.data["fits"] if f["metric"] == "eval_loss"]
    if not fits:
        return ""
    groups = list(dict.fromkeys(f["group"] for f in fits))
    published = {f["group"]: f for f in sweep.data.get("published", {}).get("fits", [])}
    dashed = " Dashed: the published laws, carried on to our sizes; their data and models differ, compare slopes." if published else ""
    text = figure(fit_chart(sweep, fits, groups, published, "6nd", "6ND"),
                  f"One dot a run, both axes logarithmic. Solid: a·C<sup>b</sup>; dotted: e + a·C<sup>b</sup>.{dashed}")
    text += figure(fit_chart(sweep, fits, groups, {}, "attention", "with attention"),
                   "The same with the FLOPs that attention takes: full attention lies further to the right.")
    rows = []
    for f in sweep.data["fits"]:
        e = with_interval(f["irreducible"], f["irreducible_interval"], ".3f") if "irreducible" in f else "–"
        rows.append([esc(f["group"] or "all"), METRICS[f["metric"]], "6ND" if f["flops"] == "6nd" else "with attention",
                     with_interval(f["a"], f["a_interval"], ".4g"), with_interval(f["b"], f["b_interval"], ".4f"), e])
    for group, f in published.items():
        rows.append([f"published, {esc(group)}", METRICS["eval_loss"], "6ND", f"{f['a']:g}", f"{f['b']:g}", "–"])
    text += table(["group", "loss", "FLOPs", "a", "b", "irreducible"], rows, text_columns=3)
    text += (f"<p class=faint>C in PFLOP/s-days; Huber loss on log residuals; {100 * fits[0]['level']:g} % intervals, the seeds of one size counting as one: hull of a "
             "studentised bootstrap and of Student's t. They need two sizes more than a law has parameters.</p>")
    return text + (f"<p class=faint>Published: {esc(sweep.data['published']['source'])}.</p>" if published else "")
