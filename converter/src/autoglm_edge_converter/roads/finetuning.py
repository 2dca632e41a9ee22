"""What to prune, and who trains between the steps: `--finetune module.py:function` with `--prune 0.4`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from autoglm_edge_converter.errors import BadOption, UserCodeFailed
from autoglm_edge_converter.roads.pruning_schedule import STEPS, Schedule
from autoglm_edge_converter.usercode import blamed_on, file_of, load_function


@dataclass(frozen=True)
class Finetuning:
    """Pruning with training."""

    reference: str
    """`module.py:function`, called with the model; trains it in place and gives None, or gives another one."""
    schedule: Schedule

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Finetuning:
        """Read `finetune`, `prune` and `prune_steps`. Raises BadOption."""
        try:
            schedule = Schedule(float(options.get("prune", "")), int(options.get("prune_steps", STEPS)))
        except ValueError as error:
            reason = f" ({error})" if "fraction" in str(error) or "steps" in str(error) else ""
            raise BadOption(f"--finetune goes with --prune FRACTION of the multiplications, as 0.4{reason}") from None
        return cls(str(options["finetune"]), schedule)

    def trainer(self, kind: type, called: str) -> Callable[[Any], Any]:
        """Return the user's function, made to give a model of a kind. Raises UserCodeFailed, and so does the result."""
        function = load_function(self.reference)

        def train(model: Any) -> Any:
            with blamed_on(file_of(self.reference)):
                answer = function(model)
            if answer is not None and not isinstance(answer, kind):
                raise UserCodeFailed(f"{self.reference} gives {type(answer).__name__}: give None or {called}")
            return model if answer is None else answer

        return train
