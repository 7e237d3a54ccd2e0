"""The options that several commands share, each declared once; training options carry Hugging Face's names."""

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

_MODEL, _DATA, _TRAINING, _RUN = "Model", "Data", "Training", "Running"

Task = Annotated[str, typer.Option(help="The task; `xadapt tasks` lists them.", rich_help_panel=_DATA)]
Regime = Annotated[str, typer.Option(help="What trains: adapter, lora or full.", rich_help_panel=_MODEL)]
Backbone = Annotated[
    str,
    typer.Option(help="A hub id, an XLM-R folder, or 'embedded'.", rich_help_panel=_MODEL, envvar="XADAPT_BACKBONE"),
]
AdapterConfig = Annotated[
    str | None,
    typer.Option(help="seq_bn (Pfeiffer) or double_seq_bn (Houlsby); default seq_bn.", rich_help_panel=_MODEL),
]
ReductionFactor = Annotated[
    float | None, typer.Option(help="Hidden size over bottleneck size; default 16.", rich_help_panel=_MODEL)
]
NonLinearity = Annotated[
    str | None, typer.Option(help="relu, gelu, swish or tanh; default relu.", rich_help_panel=_MODEL)
]
LoraR = Annotated[int | None, typer.Option(help="Rank of the deltas; default 16.", rich_help_panel=_MODEL)]
LoraAlpha = Annotated[
    float | None, typer.Option(help="Deltas times alpha over rank; default 32.", rich_help_panel=_MODEL)
]
LoraDropout = Annotated[
    float | None, typer.Option(help="Dropout in front of the deltas; default 0.", rich_help_panel=_MODEL)
]
TargetModules = Annotated[
    str | None,
    typer.Option(
        help="Where deltas go, joined by commas: query, key, value, attention.output.dense, intermediate.dense, "
        "output.dense; default query,key,value.",
        rich_help_panel=_MODEL,
    ),
]
UseRslora = Annotated[
    bool | None, typer.Option("--use-rslora", help="Scale by the root of the rank.", rich_help_panel=_MODEL)
]
UseDora = Annotated[
    bool | None, typer.Option("--use-dora", help="Learn the weights' norms apart.", rich_help_panel=_MODEL)
]
Composition = Annotated[
    str | None,
    typer.Option(
        help="How intermediate tasks enter: none, continue, stack, fusion, average or multitask; `xadapt regimes` says "
        "what each regime has. Default: none without --intermediate; with one, continue for full, else stack; with "
        "several, multitask for full, else fusion.",
        rich_help_panel=_MODEL,
    ),
]
JointComposition = Annotated[
    str | None,
    typer.Option(help="multitask, to train several tasks as one model; else one each.", rich_help_panel=_MODEL),
]
Together = Annotated[
    bool | None,
    typer.Option(
        "--together",
        help="Train the tasks' modules side by side on one encoder: on a CPU with the results of one after the other, to "
        "rounding; elsewhere dropout draws other masks.",
        rich_help_panel=_TRAINING,
    ),
]
Intermediate = Annotated[
    str | None,
    typer.Option(
        help="The intermediate tasks behind the target: mnli, mnli@de, or several joined by commas.",
        rich_help_panel=_MODEL,
    ),
]
Module = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK=FOLDER",
        help="Import an intermediate task's module instead of training it: an AdapterHub or PEFT folder; repeatable.",
        rich_help_panel=_MODEL,
    ),
]
TrainOn = Annotated[
    str | None,
    typer.Option(
        help="What trains a fusion's attention: mixture (of the intermediate tasks) or target; default mixture.",
        rich_help_panel=_MODEL,
    ),
]
ReferenceFusion = Annotated[
    bool | None,
    typer.Option("--reference-fusion", help="AdapterFusion by the library's own path.", rich_help_panel=_MODEL),
]
FusionRegularization = Annotated[
    float | None,
    typer.Option(help="Weight of AdapterFusion's value penalty, 0 for none; default 0.01.", rich_help_panel=_MODEL),
]
FusedTasks = Annotated[
    str, typer.Option("--tasks", help="The intermediate tasks, joined by commas, or all.", rich_help_panel=_DATA)
]
FusedTarget = Annotated[
    str | None, typer.Option("--target", help="The target, with --train-on target.", rich_help_panel=_DATA)
]
MixingCap = Annotated[
    int | None, typer.Option(help="Rows that count of a task in the draw; default 131072.", rich_help_panel=_TRAINING)
]
MixingTemperature = Annotated[
    float | None,
    typer.Option(help="Tasks are drawn by rows to the power 1 / this; default 1.", rich_help_panel=_TRAINING),
]
Robust = Annotated[
    str | None,
    typer.Option(
        help="Robust training: adversarial, random or synonym (classification only).", rich_help_panel=_TRAINING
    ),
]
RobustEpsilon = Annotated[
    float | None,
    typer.Option(
        help="Radius words are moved in, over their mean norm; default 0.05, at random 0.5.", rich_help_panel=_TRAINING
    ),
]
RobustSteps = Annotated[
    int | None, typer.Option(help="Steps of the adversary's ascent; default 3.", rich_help_panel=_TRAINING)
]
RobustStepSize = Annotated[
    float | None, typer.Option(help="Length of such a step in radii; default 0.5.", rich_help_panel=_TRAINING)
]
RobustCopies = Annotated[
    int | None, typer.Option(help="Copies of each row with synonyms; default 3.", rich_help_panel=_TRAINING)
]
Synonyms = Annotated[
    str | None,
    typer.Option(help="A file of them: a word, a tab, its neighbours.", rich_help_panel=_TRAINING),
]
MlmRatio = Annotated[
    float | None,
    typer.Option(help="Share of steps of masked language modelling mixed in.", rich_help_panel=_TRAINING),
]
MlmLanguages = Annotated[
    str | None, typer.Option(help="Its languages, joined by commas; default en.", rich_help_panel=_TRAINING)
]
TrainLanguage = Annotated[
    str | None,
    typer.Option(help="Train on these instead of English: codes joined by commas.", rich_help_panel=_DATA),
]
Data = Annotated[
    str,
    typer.Option(
        help="'hub', a mirror folder, xtreme:FOLDER, or 'embedded'.", rich_help_panel=_DATA, envvar="XADAPT_DATA"
    ),
]
TaskFile = Annotated[
    str | None,
    typer.Option(help="A YAML file with a task of your own, which can then be named.", rich_help_panel=_DATA),
]
MaxTrainSamples = Annotated[int | None, typer.Option(help="Train on the first N rows.", rich_help_panel=_DATA)]
MaxEvalSamples = Annotated[
    int | None, typer.Option(help="Select on the first N English dev rows.", rich_help_panel=_DATA)
]
MaxPredictSamples = Annotated[
    int | None, typer.Option(help="Evaluate on the first N test rows of each language.", rich_help_panel=_DATA)
]
Languages = Annotated[
    str | None, typer.Option(help="Evaluate on these only: codes joined by commas.", rich_help_panel=_DATA)
]
RetrievalLayer = Annotated[
    int | None,
    typer.Option(help="Hidden state that retrieval pools, 0 = embeddings; default as XTREME.", rich_help_panel=_MODEL),
]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate.", rich_help_panel=_TRAINING)]
NumTrainEpochs = Annotated[float | None, typer.Option(help="Epochs.", rich_help_panel=_TRAINING)]
MaxSteps = Annotated[int | None, typer.Option(help="Optimizer steps; overrides epochs.", rich_help_panel=_TRAINING)]
BatchSize = Annotated[
    int | None,
    typer.Option("--per-device-train-batch-size", help="Examples a step and accumulation.", rich_help_panel=_TRAINING),
]
Accumulation = Annotated[
    int | None,
    typer.Option("--gradient-accumulation-steps", help="Batches added up for one step.", rich_help_panel=_TRAINING),
]
WarmupRatio = Annotated[float | None, typer.Option(help="Share of steps with rising rate.", rich_help_panel=_TRAINING)]
WeightDecay = Annotated[
    float | None, typer.Option(help="AdamW's decay, not on biases and LayerNorm.", rich_help_panel=_TRAINING)
]
AdamEpsilon = Annotated[float | None, typer.Option(help="AdamW's epsilon.", rich_help_panel=_TRAINING)]
MaxGradNorm = Annotated[
    float | None, typer.Option(help="Clip gradients to this norm; 0: never.", rich_help_panel=_TRAINING)
]
MaxSeqLength = Annotated[int | None, typer.Option(help="Tokens a row may have.", rich_help_panel=_TRAINING)]
EvalSteps = Annotated[
    int | None, typer.Option(help="Select every N steps too, not only after epochs.", rich_help_panel=_TRAINING)
]
Dtype = Annotated[
    str | None,
    typer.Option(help="auto, float32 or bfloat16; auto is bfloat16 where supported.", rich_help_panel=_TRAINING),
]
Seed = Annotated[int, typer.Option(help="Seed of weights, order and dropout.", rich_help_panel=_TRAINING)]
Store = Annotated[
    str, typer.Option(help="Where results are kept and found again.", rich_help_panel=_RUN, envvar="XADAPT_STORE")
]
ReportTo = Annotated[
    str | None,
    typer.Option(
        help="Also log to tensorboard, wandb, mlflow or trackio, joined by commas; local unless set up otherwise.",
        rich_help_panel=_RUN,
    ),
]

# name -> (annotation, default), in the order of --help; `takes` gives them to a command
SHARED: dict[str, tuple[object, object]] = {
    "task": (Task, inspect.Parameter.empty),
    "regime": (Regime, "adapter"),
    "backbone": (Backbone, "xlm-roberta-base"),
    "adapter_config": (AdapterConfig, None),
    "reduction_factor": (ReductionFactor, None),
    "non_linearity": (NonLinearity, None),
    "lora_r": (LoraR, None),
    "lora_alpha": (LoraAlpha, None),
    "lora_dropout": (LoraDropout, None),
    "target_modules": (TargetModules, None),
    "use_rslora": (UseRslora, None),
    "use_dora": (UseDora, None),
    "data": (Data, "hub"),
    "task_file": (TaskFile, None),
    "max_train_samples": (MaxTrainSamples, None),
    "max_eval_samples": (MaxEvalSamples, None),
    "learning_rate": (LearningRate, None),
    "num_train_epochs": (NumTrainEpochs, None),
    "max_steps": (MaxSteps, None),
    "per_device_train_batch_size": (BatchSize, None),
    "gradient_accumulation_steps": (Accumulation, None),
    "warmup_ratio": (WarmupRatio, None),
    "weight_decay": (WeightDecay, None),
    "adam_epsilon": (AdamEpsilon, None),
    "max_grad_norm": (MaxGradNorm, None),
    "max_seq_length": (MaxSeqLength, None),
    "eval_steps": (EvalSteps, None),
    "dtype": (Dtype, None),
    "seed": (Seed, 0),
    "store": (Store, "runs"),
    "report_to": (ReportTo, None),
}
TRAIN: dict[str, tuple[object, object]] = {"train_language": (TrainLanguage, None)}
JOINTLY: dict[str, tuple[object, object]] = {"composition": (JointComposition, None), "together": (Together, None)}
TARGET: dict[str, tuple[object, object]] = {"composition": (Composition, None), "intermediate": (Intermediate, None)}
MODULES: dict[str, tuple[object, object]] = {"module": (Module, None)}
FUSED: dict[str, tuple[object, object]] = {
    "task": (FusedTasks, inspect.Parameter.empty),
    "target": (FusedTarget, None),
}
FUSION: dict[str, tuple[object, object]] = {
    "train_on": (TrainOn, None),
    "reference_fusion": (ReferenceFusion, None),
    "fusion_regularization": (FusionRegularization, None),
}
ROBUST: dict[str, tuple[object, object]] = {
    "robust": (Robust, None),
    "robust_epsilon": (RobustEpsilon, None),
    "robust_steps": (RobustSteps, None),
    "robust_step_size": (RobustStepSize, None),
    "robust_copies": (RobustCopies, None),
    "synonyms": (Synonyms, None),
}
MIXTURE: dict[str, tuple[object, object]] = {
    "mixing_cap": (MixingCap, None),
    "mixing_temperature": (MixingTemperature, None),
    "mlm_ratio": (MlmRatio, None),
    "mlm_languages": (MlmLanguages, None),
}
EVALUATION: dict[str, tuple[object, object]] = {
    "languages": (Languages, None),
    "max_predict_samples": (MaxPredictSamples, None),
    "retrieval_layer": (RetrievalLayer, None),
}


def takes(*groups: dict[str, tuple[object, object]]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of some groups; it receives them as keyword arguments."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        keyword = inspect.Parameter.KEYWORD_ONLY
        merged = {name: option for group in groups for name, option in group.items()}  # a later group's goes
        parameters = [
            inspect.Parameter(name, keyword, annotation=annotation, default=default)
            for name, (annotation, default) in merged.items()
        ]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate
