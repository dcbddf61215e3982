"""What the run's line says of a training: step, loss, the last evaluation, and how long the run will still take."""

from __future__ import annotations

import math
import time
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments

from experiments.runs import progress
from experiments.runs.metrics_file import metric_label


class Progress(TrainerCallback):
    """Tells `runs.progress` of each step; of what is left, from the pace of steps and evaluations up to then.

    Args:
        evaluator: The trainer's; without one (a warm start) it is not told how long the run will take.
    """

    def __init__(self, evaluator: Any) -> None:
        self.metric = f"eval_{evaluator.primary_metric}" if evaluator else ""
        self.label = metric_label(evaluator.metric) if evaluator else ""
        self.loss = self.score = ""
        self.evaluation_losses: list[str] = []
        self.evaluation_s = 0.0  # that the last one took
        self.evaluating_since: float | None = None
        self.paused_s = 0.0  # in evaluations, since the first step
        self.first: tuple[int, float] | None = None  # which was done when: it is slower than the others

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Take an evaluation to last as the base evaluation did, until there is one."""
        self.evaluation_s = progress.seconds_of("base evaluation")
        self._tell(args, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Count a step."""
        self.first = self.first or (state.global_step, time.monotonic())
        self.evaluating_since = time.monotonic() if control.should_evaluate else None
        self._tell(args, state)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Note that an evaluation begins, where there is one an epoch."""
        if control.should_evaluate:
            self.evaluating_since = time.monotonic()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Note how long an evaluation took."""
        if self.evaluating_since is not None:
            self.evaluation_s = time.monotonic() - self.evaluating_since
            self.paused_s += self.evaluation_s
            self.evaluating_since = None
        self._tell(args, state)
        if state.is_world_process_zero and self.evaluation_losses:
            progress.write(", ".join(self.evaluation_losses))

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Keep losses and score for the line, and write it down where the trainer logs a loss."""
        logs = logs or {}
        found = {key: value for key, value in logs.items() if key.startswith("eval_") and key.endswith("loss")}
        names = {key: key.removeprefix("eval_").removesuffix("loss").strip("_") for key in found}
        self.evaluation_losses = [f"evaluation loss {names[key]}".strip() + f" {found[key]:.4g}" for key in found]
        if self.metric in logs:
            self.score = f"{self.label} {logs[self.metric]:.3f} (step {state.global_step})"
        if "loss" in logs:
            self.loss = f"loss {logs['loss']:.4g}"
            self._tell(args, state)
            if state.is_world_process_zero:
                progress.write()

    def _tell(self, args: TrainingArguments, state: TrainerState) -> None:
        parts = [f"step {state.global_step}/{state.max_steps}", self.loss, self.score]
        parts.append("evaluating" * (self.evaluating_since is not None))
        progress.steps("  ".join(filter(None, parts)), self.left(args, state) if self.metric else None)

    def left(self, args: TrainingArguments, state: TrainerState) -> float | None:
        """Return the seconds that steps, evaluations and the final evaluation will take; None before it is known."""
        if self.first is None or state.global_step == self.first[0]:
            return None
        step, since = self.first
        of_steps = time.monotonic() - since - self.paused_s
        if self.evaluating_since is not None:
            of_steps -= time.monotonic() - self.evaluating_since
        step_s = of_steps / (state.global_step - step)
        num_evaluations = 1 + (self.evaluating_since is not None)  # the final one, and that which is going on
        if args.eval_strategy == "steps" and state.global_step < state.max_steps:  # the last step ends with one
            num_evaluations += math.ceil(state.max_steps / state.eval_steps) - state.global_step // state.eval_steps
        elif args.eval_strategy == "epoch":
            num_evaluations += math.ceil(args.num_train_epochs) - int(round(state.epoch or 0, 6))
        return (state.max_steps - state.global_step) * step_s + num_evaluations * self.evaluation_s
