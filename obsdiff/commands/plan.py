"""`obsdiff plan`."""

from obsdiff.commands import Source_, Spec_


def run(
    source: Source_,
    spec: Spec_,
    calibration_prompts: int = 100,
    memory_gib: float = 24,
    rate: str | None = None,
    calibrated: bool = False,
    as_json: bool = False,
) -> None:
    """Say what `prune` would do and how long it takes, from the model's configuration alone: no weights are opened.

    Args:
        calibration_prompts: how many there will be.
        memory_gib: of the device; whether the run fits into it, and how.
        rate: of its matrix products in TFLOP/s, such as 300TFLOPS; or a device (a100, cpu, h100, h200, l40s, rtx4090),
            or `here`, measured. Where it is left out, that of the CPU here in the table, or of an a100.
        calibrated: the dense model's statistics are at hand, so that the first package is not sampled for.
        as_json: for programs.
    """
    from obsdiff.planning.rates import check

    check(rate)
    from obsdiff.planning.plan import describe
    from obsdiff.planning.plan import plan as find_out

    found = find_out(source, spec, calibration_prompts, int(memory_gib * 2**30), rate, calibrated)
    print(describe(found, as_json))
