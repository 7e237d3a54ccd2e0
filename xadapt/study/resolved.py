"""What a study's open choices came to when it began, so that it goes on with the same; torch-free."""

from pydantic import BaseModel, ConfigDict


class Resolved(BaseModel):
    """What names came to that mean something else on another machine or day.

    dtype is what `auto` came to, empty while nothing asked. commits are those that branches of the hub were at, by
    `datasets/<owner>/<name>@<branch>` and `models/<name>@<branch>`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: str = ""
    commits: dict[str, str] = {}


# of a study that begins
NOTHING = Resolved()
