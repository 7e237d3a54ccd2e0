"""Which compositions each regime has: names alone, so that `--help` can tell them at once."""

from xadapt.errors import UserError, unknown

_MODULES = ("none", "continue", "stack", "fusion", "average", "multitask")
COMPOSITIONS: dict[str, tuple[str, ...]] = {
    "full": ("none", "continue", "multitask"),
    "adapter": _MODULES,
    "lora": _MODULES,
}
EVERY_COMPOSITION = tuple(dict.fromkeys(name for names in COMPOSITIONS.values() for name in names))
# compositions of several intermediate tasks at once; the others take one each
JOINT = frozenset({"fusion", "average", "multitask"})


def check_composition(regime: str, composition: str, *, place: str) -> None:
    """Raise UserError unless the regime exists and has this composition; the message lists the pairs that exist."""
    if regime not in COMPOSITIONS:
        raise unknown("regime", regime, COMPOSITIONS, place=place)
    if composition not in EVERY_COMPOSITION:
        raise unknown("composition", composition, EVERY_COMPOSITION, place=place)
    if composition not in COMPOSITIONS[regime]:
        pairs = "; ".join(f"{name}: {', '.join(names)}" for name, names in COMPOSITIONS.items())
        raise UserError(
            f"regime '{regime}' has no composition '{composition}' in {place}: it needs a module apart from the "
            f"encoder. Pairs that exist: {pairs}."
        )
