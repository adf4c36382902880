"""What trials of both models share: choosing prompts, running programs, the table and the percentages."""
import subprocess
import sys


def choose(scenes, key, count, rng):
    """`count` of the scenes: one of every group of equal key before a group comes a second time."""
    groups = {}
    for scene in scenes:
        groups.setdefault(key(scene), []).append(scene)
    for group in groups.values():
        rng.shuffle(group)
    chosen = []
    while len(chosen) < count and any(groups.values()):
        keys = [name for name, group in groups.items() if group]
        rng.shuffle(keys)
        chosen += [groups[tuple(name)].pop() for name in keys[:count - len(chosen)]]
    return chosen


def run(command):
    """Standard output of a command; a failure ends the program with the command's own words."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}: "
                 f"{done.stderr.decode(errors='replace').strip()[-500:]}")
    return done.stdout


def row(index, group, caption, right, verdict, seconds):
    """One line of the table: `right` is {slot: whether it is}."""
    marks = " ".join("ok" if good else "--" for good in right.values())
    note = "" if all(right.values()) else f"   [{verdict.note}]"
    return f"{index:4} {group:8} {marks} {seconds:6.1f} s  {caption}{note}"


def percentages(results):
    """{(group, slot): percent right}, and (group, 'all'), of results [(group, {slot: right})]."""
    out = {}
    for group in sorted({group for group, _ in results}, reverse=True):
        rows = [right for name, right in results if name == group]
        for slot in rows[0]:
            out[group, slot] = 100.0 * sum(right[slot] for right in rows) / len(rows)
        out[group, "all"] = 100.0 * sum(all(right.values()) for right in rows) / len(rows)
    return out
