"""Charts as inline SVG, drawn by hand: line charts (linear or log axes) and heat maps. Standard library only.

Every function returns an <svg> element as text. Colours come from PALETTE in a fixed order, so that a series keeps its colour over
all charts of a report; every line also carries its name at its end, so that a print in grey stays readable.
"""
import html
import math

PALETTE = ["#0b6e99", "#d9480f", "#5f3dc4", "#2b8a3e", "#868e96"]
INK, FAINT, GRID = "#212529", "#868e96", "#e9ecef"
FONT = "font-family='system-ui, sans-serif' font-size='12'"


def number(value):
    """Short text of an axis value: 2048 -> 2K, 0.25 -> 0.25."""
    for unit, size in (("M", 1 << 20), ("K", 1 << 10)):
        if value >= size and value % size == 0:
            return f"{int(value // size)}{unit}"
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    if value >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:.6g}"


def nice_ticks(low, high, wanted=5):
    """Round values that cover [low, high]."""
    span = high - low or abs(high) or 1
    step = 10 ** math.floor(math.log10(span / wanted))
    for factor in (1, 2, 2.5, 5, 10):
        if span / (step * factor) <= wanted:
            step *= factor
            break
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low, high, base):
    exponents = range(math.floor(math.log(low, base)), math.ceil(math.log(high, base)) + 1)
    return [base**e for e in exponents if low / 1.001 <= base**e <= high * 1.001]


class Axis:
    """Maps values to pixels."""

    def __init__(self, low, high, begin, end, log_base=0):
        self.low, self.high, self.begin, self.end, self.log = low, high, begin, end, log_base

    def __call__(self, value):
        if self.log:
            share = (math.log(value) - math.log(self.low)) / ((math.log(self.high) - math.log(self.low)) or 1)
        else:
            share = (value - self.low) / ((self.high - self.low) or 1)
        return self.begin + share * (self.end - self.begin)

    def ticks(self):
        return log_ticks(self.low, self.high, self.log) if self.log else nice_ticks(self.low, self.high)


def spread_labels(wanted, gap, low, high):
    """Moves label positions apart by at least `gap`, keeping their order and staying within [low, high]."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [0.0] * len(wanted)
    floor = low
    for i in order:
        placed[i] = max(wanted[i], floor)
        floor = placed[i] + gap
    ceiling = high
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - gap
    return placed


def line_chart(series, x_label, y_label, title, x_log=0, y_log=0, width=680, height=330, markers=False, y_range=None, notes=()):
    """series: list of {name, points: [(x, y)], dashed: bool}. notes: list of (x, text) drawn as vertical lines."""
    points = [p for s in series for p in s["points"]]
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low, high = y_range or (min(ys), max(ys))
    if y_log:
        low, high = low / 1.15, high * 1.15
    else:
        pad = (high - low) * 0.06 or abs(high) * 0.02 or 1
        low, high = low - pad, high + pad
    left, right, top, bottom = 62, width - 150, 34, height - 46
    x = Axis(min(xs), max(xs), left, right, x_log)
    y = Axis(low, high, bottom, top, y_log)
    out = [f"<svg viewBox='0 0 {width} {height}' width='100%' role='img' aria-label='{html.escape(title, True)}' {FONT} fill='{INK}'>"]
    out.append(f"<text x='{left}' y='18' font-weight='600'>{html.escape(title)}</text>")
    for t in y.ticks():
        out.append(f"<line x1='{left}' x2='{right}' y1='{y(t):.1f}' y2='{y(t):.1f}' stroke='{GRID}'/>")
        out.append(f"<text x='{left - 6}' y='{y(t) + 4:.1f}' text-anchor='end' fill='{FAINT}'>{number(t)}</text>")
    for t in x.ticks():
        out.append(f"<line x1='{x(t):.1f}' x2='{x(t):.1f}' y1='{bottom}' y2='{bottom + 4}' stroke='{FAINT}'/>")
        out.append(f"<text x='{x(t):.1f}' y='{bottom + 17}' text-anchor='middle' fill='{FAINT}'>{number(t)}</text>")
    out.append(f"<line x1='{left}' x2='{right}' y1='{bottom}' y2='{bottom}' stroke='{FAINT}'/>")
    out.append(f"<text x='{(left + right) / 2}' y='{height - 8}' text-anchor='middle'>{html.escape(x_label)}</text>")
    out.append(f"<text x='14' y='{(top + bottom) / 2}' text-anchor='middle' transform='rotate(-90 14 {(top + bottom) / 2})'>{html.escape(y_label)}</text>")
    for at, text in notes:
        out.append(f"<line x1='{x(at):.1f}' x2='{x(at):.1f}' y1='{top}' y2='{bottom}' stroke='{FAINT}' stroke-dasharray='2 3'/>")
        out.append(f"<text x='{x(at) + 4:.1f}' y='{top + 10}' fill='{FAINT}'>{html.escape(text)}</text>")
    labels = spread_labels([y(s["points"][-1][1]) for s in series], 15, top, bottom)
    for i, s in enumerate(series):
        colour = s.get("colour", PALETTE[i % len(PALETTE)])
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in s["points"])
        dash = " stroke-dasharray='5 4'" if s.get("dashed") else ""
        out.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'{dash}/>")
        if markers:
            out += [f"<circle cx='{x(a):.1f}' cy='{y(b):.1f}' r='3' fill='{colour}'/>" for a, b in s["points"]]
        out.append(f"<text x='{right + 8}' y='{labels[i] + 4:.1f}' fill='{colour}' font-weight='600'>{html.escape(s['name'])}</text>")
    out.append("</svg>")
    return "".join(out)


def heat_colour(share):
    """White to deep blue, perceptually even enough for shares in [0, 1]."""
    s = max(0.0, min(1.0, share)) ** 0.6
    return "#%02x%02x%02x" % tuple(round(255 + (c - 255) * s) for c in (8, 64, 129))


def heat_map(matrix, title, cell=9):
    """matrix[row][column] in [0, 1]; cells above the diagonal (None) stay empty."""
    n = len(matrix)
    width, height = n * cell + 4, n * cell + 20
    out = [f"<svg viewBox='0 0 {width} {height}' width='{width}' height='{height}' role='img' aria-label='{html.escape(title, True)}' {FONT} fill='{INK}'>"]
    out.append(f"<text x='1' y='11' font-size='10'>{html.escape(title)}</text>")
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            if value is None:
                continue
            out.append(f"<rect x='{1 + j * cell}' y='{16 + i * cell}' width='{cell - 1}' height='{cell - 1}' fill='{heat_colour(value)}'>"
                       f"<title>queries of block {i} read block {j}: {100 * value:.0f} %</title></rect>")
    out.append("</svg>")
    return "".join(out)


def moba_schematic():
    """What MoBA does, in one picture: one query, eight blocks, three of them read."""
    n, read, own, w, h = 8, (1, 4), 6, 58, 40
    out = [f"<svg viewBox='0 0 {n * w + 130} 150' width='100%' style='max-width:620px' role='img' aria-label='one query reads three of its blocks' {FONT} fill='{INK}'>"]
    for i in range(n):
        fill = "#0b6e99" if i == own else "#74c0fc" if i in read else "#f1f3f5"
        ink = "#ffffff" if i == own else INK if i in read else FAINT
        label = "own" if i == own else "read" if i in read else "future" if i > own else "skipped"
        out.append(f"<rect x='{i * w + 2}' y='70' width='{w - 4}' height='{h}' rx='4' fill='{fill}' stroke='#ced4da'/>")
        out.append(f"<text x='{i * w + w / 2}' y='94' text-anchor='middle' fill='{ink}'>{label}</text>")
        out.append(f"<text x='{i * w + w / 2}' y='128' text-anchor='middle' fill='{FAINT}' font-size='10'>block {i}</text>")
    query = own * w + w * 0.7
    out.append(f"<circle cx='{query}' cy='24' r='7' fill='#d9480f'/><text x='{query + 14}' y='28'>one query (a token)</text>")
    for i in (*read, own):
        out.append(f"<path d='M{query} 31 Q {(query + i * w + w / 2) / 2} 40 {i * w + w / 2} 68' fill='none' stroke='#d9480f' stroke-width='1.5'/>")
    out.append("</svg>")
    return "".join(out)
