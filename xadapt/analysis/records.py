"""The Score: one number, with everything needed to trace it."""

from pydantic import BaseModel, ConfigDict


class Score(BaseModel):
    """One metric of one model on one task and language.

    value is in points, 0 to 100. intermediate is "" or names joined by commas. setting is a readable line of what
    all comparable cells share (backbone, data, caps on rows): tables never mix settings. variant is what else tells the
    score's row from others of its name, mostly nothing; basis is the same for a score and for that of composition none
    which it is a gain over. learning_rate and steps are those of the last training behind it, numbers holds whatever
    else differs between the scores that it was collected with. signature names everything that made the number. stage is
    the key of the evaluation in the store. collapsed marks a model that predicted one class only. repeats marks a cell
    whose intermediate task is the target's own training data: nothing new was trained and the number is that of
    composition none. stand_in names the split whose rows stand for a test split that the data lacks, mostly nothing.
    skipped counts the rows of the split that were left out, repaired those of which an answer's offset was mended;
    train_skipped and train_repaired are the same of the train and dev rows of all trainings behind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    task_version: int
    language: str
    family: str
    metric: str
    metric_version: int
    main: bool
    value: float
    n: int
    regime: str
    composition: str
    intermediate: str
    seed: int
    variant: str = ""
    learning_rate: float | None = None
    steps: int | None = None
    train_samples: int | None
    setting: str
    basis: str = ""
    signature: str
    stage: str
    collapsed: bool = False
    repeats: bool = False
    stand_in: str = ""
    skipped: int = 0
    repaired: int = 0
    train_skipped: int = 0
    train_repaired: int = 0
    numbers: dict[str, str | int | float | bool | None] = {}
