"""Charts of a sweep's report: category plots with spread, and losses against FLOPs on log axes with fitted laws."""
import html
import math

from report import svg

COLOURS = ["#0b6e99", "#d9480f", "#5f3dc4", "#2b8a3e", "#c2255c", "#846358", "#1098ad", "#868e96"]


def colour(i):
    return COLOURS[i % len(COLOURS)]


def spread_ticks(low, high):
    """Round values on a log axis: powers of ten, 1-2-5 between them where they are few, evenly spaced ones on a short axis."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        ticks = [f * 10.0**e for e in exponents for f in factors if low <= f * 10.0**e <= high]
        if len(ticks) >= 4:
            return ticks[:: math.ceil(len(ticks) / 8)]
    return [t for t in svg.nice_ticks(low, high, 5) if t > 0]


def power(value):
    """5e-12 as 5·10⁻¹², ordinary values as they are."""
    if 1e-3 <= value < 1e4:
        return f"{value:.6g}"
    exponent = math.floor(math.log10(value) + 1e-9)
    factor = value / 10.0**exponent
    text = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return text if abs(factor - 1) < 1e-6 else f"{factor:.3g}·{text}"


class Frame:
    """Axes, grid and labels; collects elements."""

    def __init__(self, title, width, height, right=20, top=34):
        self.width, self.height = width, height
        self.left, self.right, self.top, self.bottom = 66, width - right, top, height - 46
        self.out = [f"<svg viewBox='0 0 {width} {height}' width='100%' role='img' aria-label='{html.escape(title, True)}' "
                    f"{svg.FONT} fill='{svg.INK}'><text x='{self.left}' y='18' font-weight='600'>{html.escape(title)}</text>"]

    def add(self, text):
        self.out.append(text)

    def y_axis(self, axis, ticks, label, text=svg.number):
        for t in ticks:
            self.add(f"<line x1='{self.left}' x2='{self.right}' y1='{axis(t):.1f}' y2='{axis(t):.1f}' stroke='{svg.GRID}'/>")
            self.add(f"<text x='{self.left - 6}' y='{axis(t) + 4:.1f}' text-anchor='end' fill='{svg.FAINT}'>{text(t)}</text>")
        middle = (self.top + self.bottom) / 2
        self.add(f"<text x='14' y='{middle}' text-anchor='middle' transform='rotate(-90 14 {middle})'>{html.escape(label)}</text>")

    def x_axis(self, ticks, label):
        """ticks: list of (pixel, text)"""
        for at, text in ticks:
            self.add(f"<line x1='{at:.1f}' x2='{at:.1f}' y1='{self.bottom}' y2='{self.bottom + 4}' stroke='{svg.FAINT}'/>")
            self.add(f"<text x='{at:.1f}' y='{self.bottom + 17}' text-anchor='middle' fill='{svg.FAINT}'>{html.escape(text)}</text>")
        self.add(f"<line x1='{self.left}' x2='{self.right}' y1='{self.bottom}' y2='{self.bottom}' stroke='{svg.FAINT}'/>")
        self.add(f"<text x='{(self.left + self.right) / 2}' y='{self.height - 8}' text-anchor='middle'>{html.escape(label)}</text>")

    def text(self):
        return "".join(self.out) + "</svg>"


def category_limits(points, baseline, least_span):
    values = [v for _, vs in points for v in vs] + (baseline[1] if baseline else [])
    low, high = min(values), max(values)
    span = max(least_span, 1.2 * max(high - low, 1e-4))
    return (low + high - span) / 2, (low + high + span) / 2


def category_chart(title, points, baseline, x_label, y_label, line_colour, width=430, height=310, least_span=0, limits=None):
    """points: list of (label, [values]); the mean is drawn, single values as dots, their range as a bar. baseline: (label, [values]) or None.

    least_span: the axis covers at least this much, so that noise is not blown up. limits: the axis itself.
    """
    low, high = limits or category_limits(points, baseline, least_span)
    f = Frame(title, width, height, top=52 if baseline else 34)
    y = svg.Axis(low, high, f.bottom, f.top)
    f.y_axis(y, y.ticks(), y_label)
    step = (f.right - f.left) / len(points)
    xs = [f.left + (i + 0.5) * step for i in range(len(points))]
    f.x_axis([(x, label) for x, (label, _) in zip(xs, points)], x_label)
    if baseline:
        mean = sum(baseline[1]) / len(baseline[1])
        if len(baseline[1]) > 1:
            top, under = y(max(baseline[1])), y(min(baseline[1]))
            f.add(f"<rect x='{f.left}' width='{f.right - f.left}' y='{top:.1f}' height='{max(0.5, under - top):.1f}' fill='{svg.FAINT}' opacity='.15'/>")
        f.add(f"<line x1='{f.left}' x2='{f.right}' y1='{y(mean):.1f}' y2='{y(mean):.1f}' stroke='{svg.FAINT}' stroke-width='2' stroke-dasharray='6 4'/>")
        # Its name stands in a legend: at the line it would cover what lies near it.
        f.add(f"<line x1='{f.left}' x2='{f.left + 26}' y1='34' y2='34' stroke='{svg.FAINT}' stroke-width='2' stroke-dasharray='6 4'/>"
              f"<text x='{f.left + 32}' y='38' fill='{svg.FAINT}'>{html.escape(baseline[0])}</text>")
    drawn = [(x, vs) for x, (_, vs) in zip(xs, points) if vs]
    path = " ".join(f"{x:.1f},{y(sum(vs) / len(vs)):.1f}" for x, vs in drawn)
    f.add(f"<polyline points='{path}' fill='none' stroke='{line_colour}' stroke-width='2'/>")
    for x, vs in drawn:
        f.add(f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{y(min(vs)):.1f}' y2='{y(max(vs)):.1f}' stroke='{line_colour}'/>")
        f.add(f"<circle cx='{x:.1f}' cy='{y(sum(vs) / len(vs)):.1f}' r='4.5' fill='{line_colour}'/>")
        if len(vs) > 1:
            f.out += [f"<circle cx='{x + 8:.1f}' cy='{y(v):.1f}' r='2' fill='none' stroke='{line_colour}'/>" for v in vs]
    return f.text()


def flops_chart(title, series, laws, x_label, y_label, width=680, height=360):
    """Log axes. series: list of {name, colour, points: [(flops, loss)], joined}; laws: list of {colour, at: function, dash, name}; a name is written at the end."""
    points = [p for s in series for p in s["points"]]
    xs = [p[0] for p in points]
    ys = [p[1] for p in points] + [law["at"](c) for law in laws if "name" in law for c in (min(xs), max(xs))]
    f = Frame(title, width, height, right=150)
    low, high = min(xs), max(xs)
    x = svg.Axis(low / 1.15, high * 1.15, f.left, f.right, 10)
    y = svg.Axis(min(ys) / 1.02, max(ys) * 1.02, f.bottom, f.top, 10)
    f.y_axis(y, spread_ticks(y.low, y.high), y_label, power)
    f.x_axis([(x(t), power(t)) for t in spread_ticks(x.low, x.high)], x_label)
    ends = []
    for s in series:
        if s.get("joined") and len(s["points"]) > 1:
            path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in s["points"])
            f.add(f"<polyline points='{path}' fill='none' stroke='{s['colour']}' stroke-width='1.5' opacity='.8'/>")
        f.out += [f"<circle cx='{x(a):.1f}' cy='{y(b):.1f}' r='3' fill='{s['colour']}'/>" for a, b in s["points"]]
        ends.append((y(s["points"][-1][1]), s["name"], s["colour"]))
    for law in laws:
        steps = [low * (high / low) ** (i / 60) for i in range(61)]
        path = " ".join(f"{x(c):.1f},{y(law['at'](c)):.1f}" for c in steps if y.low <= law["at"](c) <= y.high)
        dash = f" stroke-dasharray='{law['dash']}'" if law.get("dash") else ""
        f.add(f"<polyline points='{path}' fill='none' stroke='{law['colour']}' stroke-width='{1.3 if 'name' in law else 2}'{dash}/>")
        if "name" in law:
            ends.append((y(law["at"](high)), law["name"], law["colour"]))
    for placed, (_, name, ink) in zip(svg.spread_labels([e[0] for e in ends], 15, f.top, f.bottom), ends):
        f.add(f"<text x='{f.right + 8}' y='{placed + 4:.1f}' fill='{ink}' font-weight='600'>{html.escape(name)}</text>")
    return f.text()
