"""What a model says, piece by piece, as texts for WeChat."""

import re

from wechat.reply import plain

LEAST = 200  # characters of a text: five messages are all that may follow a direct answer
FENCE = re.compile(r"\s*(```|~~~)")


class Paragraphs:
    """Cuts the stream of an answer behind paragraphs, never inside a thought or a code block."""

    def __init__(self):
        self._line = []  # the pieces of the last line
        self._begin()

    def _begin(self):
        self._lines, self._size = [], 0
        self._is_thinking = self._is_code = False

    def feed(self, piece):
        """The texts that are whole with this piece, as a list."""
        *ends, rest = piece.split("\n")
        texts = []
        for end in ends:
            line = "".join([*self._line, end])
            self._line = []
            if self._ends_with(line):
                texts += self.rest()
        self._line.append(rest)
        return texts

    def rest(self):
        """What is left at the end of the stream, as a list of a text or of none."""
        said = "\n".join([*self._lines, "".join(self._line)])
        # Some APIs cut between the halves of a character.
        text = plain(said.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
        self._line = []
        self._begin()
        return [text] if text.strip() else []

    def _ends_with(self, line):
        """Whether a text may end with this line."""
        self._lines.append(line)
        tags = line.lower()
        if "think>" in tags:
            self._is_thinking = tags.rfind("<think>") > tags.rfind("</think>")
        elif not self._is_thinking:
            self._is_code ^= bool(FENCE.match(line))
            self._size += len(line)
        return not (line.strip() or self._is_thinking or self._is_code) and self._size >= LEAST
