"""What a sweep is about, for readers who do not know it: title and lead from the sweep file's comment, and a table of the arms."""
import re

from report.sweep_data import esc, table


def title_and_lead(sweep):
    """The header's first clause, and the rest of it without the lines that tell how to run the sweep."""
    header = " ".join(line for line in sweep.data["header"] if not re.match(r"(Data|Command|Start model|Time):", line))
    if not header:
        return sweep.data["name"], ""
    first = re.match(r"(.{10,110}?)[:.](?:\s+|$)", header)
    title, rest = (first.group(1), header[first.end():]) if first else (sweep.data["name"], header)
    return title, f"<p>{esc(rest[:1].upper() + rest[1:])}</p>" if rest else ""


def changes(arm):
    """Everything that an arm states, as text by key."""
    out = dict(arm["overrides"], base=arm["base"])
    for option in ("attn", "hybrid_layers"):
        if arm[option]:
            out[option] = arm[option]
    return out


def short(key, value):
    return f"{key.removeprefix('model.attention.')}: {value}"


def arms_section(sweep):
    arms = sweep.data["arms"]
    stated = [changes(a) for a in arms]
    common = {k: v for k, v in stated[0].items() if len(arms) > 1 and all(s.get(k) == v for s in stated)}
    rows = []
    for arm, own in zip(arms, stated):
        differs = "; ".join(short(k, v) for k, v in own.items() if k not in common) or "as the base recipe"
        rows.append([esc(arm["name"]), esc(differs), esc(", ".join(arm["data"])), f"{arm['parameters']:,}", f"{arm['tokens']:,}", f"{arm['sequence_length']:,}"])
    shared = "; ".join(f"{k}: {v}" for k, v in common.items())
    seeds = ", ".join(map(str, sweep.data["seeds"]))
    return (table(["arm", "what it changes", "training data", "parameters", "tokens", "sequence"], rows, text_columns=3, wrap=True)
            + f"<p class=faint>{'Common to all arms: ' + esc(shared) + '. ' if shared else ''}Seeds: {seeds}. Parameters without embeddings; sequence: tokens "
            "that one example spans. Arms of one seed share their initial weights and the order of the data.</p>")
