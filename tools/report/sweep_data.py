"""What a sweep's report is made of: the figures in report/data.json and the runs' metrics, and the small pieces of HTML around them."""
import html
import json
import pathlib
import statistics

from report import sweep_charts as charts

PETAFLOP_DAY = 8.64e19
METRICS = {"eval_loss": "validation loss", "trailing_loss": "trailing loss", "train_loss": "training loss (last 50 steps)"}


def esc(text):
    return html.escape(str(text))


def table(head, rows, text_columns=1, wrap=False):
    """The first columns are text, the others numbers. wrap: text may break into lines."""
    def cells(tag, row):
        kind = lambda i: " class=n" if i >= text_columns else " class=w" if wrap else ""  # noqa: E731
        return "".join(f"<{tag}{kind(i)}>{c}</{tag}>" for i, c in enumerate(row))

    return "<table><tr>" + cells("th", head) + "</tr>" + "".join("<tr>" + cells("td", r) + "</tr>" for r in rows) + "</table>"


def with_interval(value, interval, form):
    """Value [low, high]; a bound that is not finite is stored as null, and so are both where there are too few sizes."""
    if interval is None:
        return f"{value:{form}} (too few sizes)"
    bounds = ["∞" if b is None else f"{b:{form}}" for b in interval]
    return f"{value:{form}} [{bounds[0]}, {bounds[1]}]"


def figure(chart, caption):
    """A chart, or several side by side, with the sentence that explains it."""
    return f"<figure>{chart}<figcaption>{caption}</figcaption></figure>"


def spread(values, digits=4):
    """Mean and standard deviation over seeds."""
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


class Sweep:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.data = json.loads((self.folder / "report" / "data.json").read_text())
        self.arms = [a["name"] for a in self.data["arms"]]
        self.colour = {name: charts.colour(i) for i, name in enumerate(self.arms)}
        self.finished = [r for r in self.data["results"] if r["status"] == "finished"]
        self.metrics = {}
        for r in self.finished:
            lines = (pathlib.Path(r["folder"]) / "metrics.jsonl").read_text().splitlines()
            self.metrics[r["run"]] = [json.loads(line) for line in lines]

    def runs(self, arm):
        return [r for r in self.finished if r["arm"] == arm]

    def values(self, arm, key):
        return [r[key] for r in self.runs(arm) if r[key] is not None]

    def arm(self, name):
        return self.data["arms"][self.arms.index(name)]

    def one_size(self):
        return len({a["flops_6nd"] for a in self.data["arms"]}) == 1

    def reference(self, arm):
        """The arm that `arm` is best looked at beside: one for all (the published baseline, else full attention) where arms are of one size,
        else the one that a claim compares it with. None if there is none."""
        baseline = self.data.get("published", {}).get("baseline")
        wanted = baseline["arm"] if baseline else "full"
        if self.one_size() and wanted in self.arms:
            return wanted
        return next((v["reference"] for v in self.data["verdicts"] if v.get("arm") == arm and v.get("reference")), None)

    def series(self, points_of, min_points=2):
        """One line per arm: the mean over its seeds of points_of(run's metrics), at x values that all seeds have."""
        out = []
        for i, arm in enumerate(self.arms):
            by_x = {}
            runs = self.runs(arm)
            for r in runs:
                for x, y in points_of(r):
                    by_x.setdefault(x, []).append(y)
            points = [(x, sum(ys) / len(ys)) for x, ys in sorted(by_x.items()) if len(ys) == len(runs)]
            if len(points) >= min_points:
                out.append({"name": arm, "points": points, "colour": self.colour[arm], "dashed": i >= len(charts.COLOURS)})
        return out

    def train_points(self, run, pieces=60):
        losses = [(m["tokens"], m["train/loss"]) for m in self.metrics[run["run"]] if m.get("train/loss") is not None]
        size = max(1, len(losses) // pieces)
        cut = [losses[i : i + size] for i in range(0, len(losses) - size + 1, size)]
        return [(part[-1][0], sum(y for _, y in part) / size) for part in cut]

    def eval_points(self, run):
        tokens = {m["step"]: m["tokens"] for m in self.metrics[run["run"]] if "train/loss" in m}
        return [(tokens[m["step"]], m["eval/loss"]) for m in self.metrics[run["run"]] if m.get("eval/loss") is not None and m["step"] in tokens]

    def flops_points(self, run, count):
        arm = self.arm(run["arm"])
        return [(t * arm[count] / arm["tokens"] / PETAFLOP_DAY, loss) for t, loss in self.eval_points(run)]

    def position_points(self, run):
        losses = run["position_loss"]
        width = self.arm(run["arm"])["sequence_length"] / max(1, len(losses))
        return [((i + 0.5) * width, v) for i, v in enumerate(losses) if v is not None]
