# What `on` and `around` take, for type checkers: a function that asks for nothing but what there is, by its names,
# and returns what can be sent. The names of the protocols say what is asked for after the message.
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeAlias, TypeVar

from wechat.fields import Anything
from wechat.message import Message
from wechat.reply import Article, Reply

Said: TypeAlias = str | Reply | Article | list[Article] | Message | None
Replies: TypeAlias = Said | Coroutine[Any, Any, Said] | Iterator[Said] | AsyncIterator[Said]
Answer: TypeAlias = Callable[[], Reply | None]
AwaitedAnswer: TypeAlias = Callable[[], Awaitable[Reply | None]]
A = TypeVar("A", contravariant=True)
R = TypeVar("R", covariant=True)

class Takes(Protocol[R]):
    def __call__(self, msg: Anything, /) -> R: ...

class TakesMatch(Protocol[R]):
    def __call__(self, msg: Anything, /, *, match: re.Match[str]) -> R: ...

class TakesSession(Protocol[R]):
    def __call__(self, msg: Anything, /, *, session: dict[str, Any]) -> R: ...

class TakesApi(Protocol[R]):
    def __call__(self, msg: Anything, /, *, api: Any) -> R: ...

class TakesMatchSession(Protocol[R]):
    def __call__(self, msg: Anything, /, *, match: re.Match[str], session: dict[str, Any]) -> R: ...

class TakesMatchApi(Protocol[R]):
    def __call__(self, msg: Anything, /, *, match: re.Match[str], api: Any) -> R: ...

class TakesSessionApi(Protocol[R]):
    def __call__(self, msg: Anything, /, *, session: dict[str, Any], api: Any) -> R: ...

class TakesMatchSessionApi(Protocol[R]):
    def __call__(self, msg: Anything, /, *, match: re.Match[str], session: dict[str, Any], api: Any) -> R: ...

class TakesError(Protocol[R]):
    def __call__(self, msg: Anything, /, *, error: Any) -> R: ...

class TakesErrorSession(Protocol[R]):
    def __call__(self, msg: Anything, /, *, error: Any, session: dict[str, Any]) -> R: ...

class TakesErrorApi(Protocol[R]):
    def __call__(self, msg: Anything, /, *, error: Any, api: Any) -> R: ...

class TakesErrorSessionApi(Protocol[R]):
    def __call__(self, msg: Anything, /, *, error: Any, session: dict[str, Any], api: Any) -> R: ...

class TakesAnswer(Protocol[A, R]):
    def __call__(self, msg: Anything, /, *, answer: A) -> R: ...

class TakesAnswerMatch(Protocol[A, R]):
    def __call__(self, msg: Anything, /, *, answer: A, match: re.Match[str]) -> R: ...

class TakesAnswerSession(Protocol[A, R]):
    def __call__(self, msg: Anything, /, *, answer: A, session: dict[str, Any]) -> R: ...

class TakesAnswerApi(Protocol[A, R]):
    def __call__(self, msg: Anything, /, *, answer: A, api: Any) -> R: ...

class TakesAnswerMatchSession(Protocol[A, R]):
    def __call__(self, msg: Anything, /, *, answer: A, match: re.Match[str], session: dict[str, Any]) -> R: ...

class TakesAnswerMatchApi(Protocol[A, R]):
    def __call__(self, msg: Anything, /, *, answer: A, match: re.Match[str], api: Any) -> R: ...

class TakesAnswerSessionApi(Protocol[A, R]):
    def __call__(self, msg: Anything, /, *, answer: A, session: dict[str, Any], api: Any) -> R: ...

class TakesAnswerMatchSessionApi(Protocol[A, R]):
    def __call__(
        self, msg: Anything, /, *, answer: A, match: re.Match[str], session: dict[str, Any], api: Any
    ) -> R: ...

Handles: TypeAlias = (
    Takes[Replies]
    | TakesMatch[Replies]
    | TakesSession[Replies]
    | TakesApi[Replies]
    | TakesMatchSession[Replies]
    | TakesMatchApi[Replies]
    | TakesSessionApi[Replies]
    | TakesMatchSessionApi[Replies]
    | TakesError[Replies]
    | TakesErrorSession[Replies]
    | TakesErrorApi[Replies]
    | TakesErrorSessionApi[Replies]
)
Around: TypeAlias = (
    Takes[Said | Coroutine[Any, Any, Said]]
    | TakesMatch[Said | Coroutine[Any, Any, Said]]
    | TakesSession[Said | Coroutine[Any, Any, Said]]
    | TakesApi[Said | Coroutine[Any, Any, Said]]
    | TakesMatchSession[Said | Coroutine[Any, Any, Said]]
    | TakesMatchApi[Said | Coroutine[Any, Any, Said]]
    | TakesSessionApi[Said | Coroutine[Any, Any, Said]]
    | TakesMatchSessionApi[Said | Coroutine[Any, Any, Said]]
    | TakesAnswer[Answer, Said]
    | TakesAnswerMatch[Answer, Said]
    | TakesAnswerSession[Answer, Said]
    | TakesAnswerApi[Answer, Said]
    | TakesAnswerMatchSession[Answer, Said]
    | TakesAnswerMatchApi[Answer, Said]
    | TakesAnswerSessionApi[Answer, Said]
    | TakesAnswerMatchSessionApi[Answer, Said]
    | TakesAnswer[AwaitedAnswer, Coroutine[Any, Any, Said]]
    | TakesAnswerMatch[AwaitedAnswer, Coroutine[Any, Any, Said]]
    | TakesAnswerSession[AwaitedAnswer, Coroutine[Any, Any, Said]]
    | TakesAnswerApi[AwaitedAnswer, Coroutine[Any, Any, Said]]
    | TakesAnswerMatchSession[AwaitedAnswer, Coroutine[Any, Any, Said]]
    | TakesAnswerMatchApi[AwaitedAnswer, Coroutine[Any, Any, Said]]
    | TakesAnswerSessionApi[AwaitedAnswer, Coroutine[Any, Any, Said]]
    | TakesAnswerMatchSessionApi[AwaitedAnswer, Coroutine[Any, Any, Said]]
)
