"""Which tests are slow, which share a worker of pytest-xdist, and which begin first; hooks of conftest.py."""

from pathlib import Path
from typing import Any

import pytest

WORKFLOW = ("test_workflow", "test_stale", "test_shell")
"""files whose tests share the one finished sweep of `project`, and so a worker"""
LONGEST = (
    *WORKFLOW,
    "test_paper_protocol",
    "test_entries",
    "test_cuda",
    "test_loading",
    "test_database",
    "test_checkpoints_of_the_paper",
    "test_guard",
    "test_tracking",
    "test_tracking_server",
    "test_warm",
)
"""files that take the longest: they begin first, so that no worker is left with one of them at the end"""
COSTLY = {"project", "warm", "served", "counted_once"}
"""fixtures whose tests are slow"""
SLOW = {
    "test_auto",
    "test_auto_sites",
    "test_benchmarks",
    "test_checkpoints_of_the_paper",
    "test_cuda",
    "test_database",
    "test_sensitivity",
    "test_sequential",
    "test_sharing",
    "test_solace",
    "test_stale",
    "test_warm",
    "test_a_class_without_a_file_is_looked_up_once",
    "test_a_compiled_denoiser_that_was_called_is_pruned_as_the_eager_one",
    "test_a_killed_process_and_a_second_run",
    "test_a_run_killed_at_any_write_goes_on",
    "test_a_run_under_model_offload_gives_the_same_weights_and_leaves_it_on",
    "test_a_second_job_waits_for_the_first",
    "test_an_edited_component_is_another_pipeline_and_gives_other_images",
    "test_every_caption_is_drawn_as_text_in_figures_that_are_xml",
    "test_every_damaged_checkpoint_is_refused",
    "test_exported_folder_opens_without_us",
    "test_features_are_those_of_torchmetrics",
    "test_figure_is_drawn_and_says_how_to_read_it",
    "test_generator_draws_what_it_is_asked",
    "test_kernel_decides_n_of_m_as_the_pattern_does",
    "test_killed_run_goes_on_and_gives_the_same_weights",
    "test_large_models_fit_80_gb_as_they_are",
    "test_latency_benchmark_runs_under_offload",
    "test_malformed_commands",
    "test_malformed_options_of_a_run",
    "test_malformed_record_is_carried_or_refused_by_name",
    "test_method_prunes_and_reloads",
    "test_models_with_shards_and_without_share_a_sweep",
    "test_offloaded_statistics_and_budgets_give_the_same_weights",
    "test_images_are_judged_on_the_gpu_with_the_same_numbers",
    "test_images_are_of_a_checkpoint_prompts_sampling_seed_code_and_libraries",
    "test_plan_says_what_prune_does",
    "test_readme_code_runs",
    "test_same_figure_has_the_same_bytes",
    "test_same_seed_same_weights",
    "test_schedulers_solve_the_same_equation",
    "test_surgery_is_zeroed_columns",
    "test_user_id_without_a_name_or_home_prunes_and_tracks",
    "test_what_is_damaged_is_made_again_and_said",
    "test_workflow_lint",
}
"""files that take more than some 10 s of a core in all, and tests that take more than some 4 s"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; marks what is slow."""
    order = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
    for item in items:
        names = {item.path.stem, item.name.partition("[")[0]}
        if names & SLOW or COSTLY & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests stay with one worker, so that its fixtures are made once, in the order of collection.

    Not --dist loadgroup, which with pytest 9.2 groups nothing: pytest-xdist 3.8 renames an item by `_nodeid`.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            stem = Path(nodeid.partition("::")[0]).stem
            return "workflow" if stem in WORKFLOW else stem

    config.option.loadscopereorder = False
    return ByFile(config, log)
