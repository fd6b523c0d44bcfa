"""Training in stages on several processes, in which no stage waits for another's backward pass.

Built on `torch.distributed.pipelining`, whose import takes a while: `import dfa` leaves this package alone.
"""

from dfa.errors import PipelineError
from dfa.pipeline.parts import Part, cut
from dfa.pipeline.schedule import ScheduleFeedback
from dfa.pipeline.signals import STAGE_SIGNALS, stage_signals

__all__ = ["STAGE_SIGNALS", "Part", "PipelineError", "ScheduleFeedback", "cut", "stage_signals"]
