"""Preprocessing as data; the steps are listed in docs/data.md."""

from toolkit.preprocess.recipe import InputSteps as InputSteps
from toolkit.preprocess.recipe import Preprocessing as Preprocessing
from toolkit.preprocess.recipe import Raw as Raw
from toolkit.preprocess.recipe import stacked as stacked
from toolkit.preprocess.steps import Cast as Cast
from toolkit.preprocess.steps import CenterCrop as CenterCrop
from toolkit.preprocess.steps import Channels as Channels
from toolkit.preprocess.steps import Clip as Clip
from toolkit.preprocess.steps import Grayscale as Grayscale
from toolkit.preprocess.steps import Layout as Layout
from toolkit.preprocess.steps import Mask as Mask
from toolkit.preprocess.steps import Normalize as Normalize
from toolkit.preprocess.steps import Pad as Pad
from toolkit.preprocess.steps import Reshape as Reshape
from toolkit.preprocess.steps import Resize as Resize
from toolkit.preprocess.steps import Scale as Scale
from toolkit.preprocess.steps import Step as Step
from toolkit.preprocess.steps import Tokenize as Tokenize
from toolkit.preprocess.steps import Truncate as Truncate
