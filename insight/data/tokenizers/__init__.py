"""Text to token ids and back: BPE, bytes, words, or an existing tokenizer.json."""

from insight.data.tokenizers.base import END_OF_TEXT as END_OF_TEXT
from insight.data.tokenizers.base import BaseTokenizer as BaseTokenizer
from insight.data.tokenizers.base import EncodedBatch as EncodedBatch
from insight.data.tokenizers.base import TokenizerConfig as TokenizerConfig
from insight.data.tokenizers.bpe import BPETokenizer as BPETokenizer
from insight.data.tokenizers.bpe import BPETokenizerConfig as BPETokenizerConfig
from insight.data.tokenizers.byte import ByteTokenizer as ByteTokenizer
from insight.data.tokenizers.byte import ByteTokenizerConfig as ByteTokenizerConfig
from insight.data.tokenizers.pretrained import PretrainedTokenizer as PretrainedTokenizer
from insight.data.tokenizers.pretrained import PretrainedTokenizerConfig as PretrainedTokenizerConfig
from insight.data.tokenizers.pretrained import load_tokenizer as load_tokenizer
from insight.data.tokenizers.word import WordTokenizer as WordTokenizer
from insight.data.tokenizers.word import WordTokenizerConfig as WordTokenizerConfig
