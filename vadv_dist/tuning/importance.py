"""How much each searched field decides: fANOVA over the trials that ran to their end."""

import warnings

import optuna
from optuna.trial import TrialState

# Fewer trials than this fit any story.
_FEWEST = 4


def importances(study: optuna.Study) -> dict[str, float]:
    """Share of the variation of the score that each field explains by itself or with others, the largest first.

    Fields that a condition switches off in some trials are left out. Empty where there are too few trials, or where
    they do not differ in their score.

    Source:
        Hutter, Hoos and Leyton-Brown, An efficient approach for assessing hyperparameter importance (ICML 2014).
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < _FEWEST or len({trial.values[0] for trial in complete}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dict(optuna.importance.get_param_importances(study, evaluator=evaluator, target=_cost))
        except (ValueError, RuntimeError):  # no field is common to all trials, or none varies
            return {}


def _cost(trial: optuna.trial.FrozenTrial) -> float:
    return float(trial.values[0])
