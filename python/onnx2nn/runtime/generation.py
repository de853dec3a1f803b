"""Text generation of com.microsoft: the loops around a decoder that is a nested graph."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def ban_repeated_ngrams(scores: Tensor, sequences: Tensor, size: int) -> Tensor:
    """Forbids every token that would repeat a run of `size` tokens of its own sequence."""
    length = sequences.shape[1]
    if size <= 0 or length + 1 < size:
        return scores
    runs = sequences.unfold(1, size, 1)
    if not runs.shape[1]:
        return scores
    tail = sequences[:, length - size + 1 :].unsqueeze(1)
    seen = (runs[:, :, :-1] == tail).all(-1)
    banned = torch.zeros_like(scores, dtype=torch.int32)
    banned = banned.scatter_add(1, runs[:, :, -1].long(), seen.to(torch.int32))
    return scores.masked_fill(banned > 0, -torch.inf)


def processed_scores(
    scores: Tensor,
    sequences: Tensor,
    *,
    eos_token_id: int,
    min_length: int,
    repetition_penalty: float,
    no_repeat_ngram_size: int,
    vocab_mask: Tensor | None,
) -> Tensor:
    """The scores of the next tokens after every rule that bears on them."""
    if repetition_penalty != 1.0:
        ids = sequences.long()
        picked = scores.gather(1, ids)
        changed = torch.where(
            picked < 0, picked * repetition_penalty, picked / repetition_penalty
        )
        scores = scores.scatter(1, ids, changed)
    scores = ban_repeated_ngrams(scores, sequences, no_repeat_ngram_size)
    if vocab_mask is not None:
        scores = scores.masked_fill(vocab_mask == 0, torch.finfo(scores.dtype).min)
    if sequences.shape[1] < min_length:
        ends = torch.arange(scores.shape[1], device=scores.device) == eos_token_id
        scores = scores.masked_fill(ends, torch.finfo(scores.dtype).min)
    return scores


def keep_hypotheses(
    kept: list[tuple[float, list[int]]],
    ended: list[tuple[float, list[int]]],
    beams: int,
    power: float,
) -> list[tuple[float, list[int]]]:
    """The best finished sequences, the best first: those kept so far, and those that ended now."""
    scored = [(total / len(tokens) ** power, tokens) for total, tokens in ended]
    return sorted([*kept, *scored], key=lambda pair: -pair[0])[:beams]


def go_on_or_end(
    options: list[tuple[float, int, int]],
    sequences: list[list[int]],
    first: int,
    beams: int,
    eos_token_id: int,
) -> tuple[list[tuple[float, int, int]], list[tuple[float, list[int]]]]:
    """Of a sample's candidates, best first: what goes on, and the sequences that are finished."""
    going: list[tuple[float, int, int]] = []
    ended: list[tuple[float, list[int]]] = []
    for place, (score, token, beam) in enumerate(options):
        if token != eos_token_id:
            going.append((score, token, first + beam))
        elif place < beams:
            ended.append((score, sequences[first + beam]))
        if len(going) == beams:
            break
    return going, ended


def settle_beams(
    kept: list[list[tuple[float, list[int]]]],
    done: list[bool],
    candidates: list[list[tuple[float, int, int]]],
    sequences: list[list[int]],
    beams: int,
    eos_token_id: int,
    pad_token_id: int,
    length_penalty: float,
    early_stopping: int,
) -> list[tuple[float, int, int]]:
    """Chooses what goes on from 2 * beams candidates of each sample; finished ones are kept."""
    chosen: list[tuple[float, int, int]] = []
    for sample, options in enumerate(candidates):
        first = sample * beams
        if done[sample]:
            chosen += [(0.0, pad_token_id, first)] * beams
            continue
        going, ended = go_on_or_end(options, sequences, first, beams, eos_token_id)
        kept[sample] = keep_hypotheses(kept[sample], ended, beams, length_penalty)
        chosen += going
        if len(kept[sample]) == beams:
            best = options[0][0] / len(sequences[first]) ** length_penalty
            done[sample] = bool(early_stopping) or kept[sample][-1][0] >= best
    return chosen


def beam_search(
    start: Callable[[], tuple[Tensor, list[Tensor]]],
    advance: Callable[[Tensor, Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]],
    sequences: Tensor,
    max_length: int,
    min_length: int,
    num_beams: int,
    num_return_sequences: int,
    length_penalty: float = 1.0,
    repetition_penalty: float = 1.0,
    vocab_mask: Tensor | None = None,
    *,
    eos_token_id: int,
    pad_token_id: int,
    no_repeat_ngram_size: int = 0,
    early_stopping: int = 0,
) -> tuple[Tensor, Tensor]:
    """com.microsoft BeamSearch: torch has no search over a decoder's outputs.

    `start` gives the first logits [batch, vocabulary] and states [batch, ...], `advance` the next
    ones [batch * beams, ...] from the last tokens, all sequences and the states. The sequences
    [batch, results, max_length] and their scores [batch, results] come out.
    """
    batch = sequences.shape[0]
    device = sequences.device
    logits, states = start()
    logits = logits.repeat_interleave(num_beams, 0)
    states = [s.repeat_interleave(num_beams, 0) for s in states]
    sequences = sequences.repeat_interleave(num_beams, 0)
    totals = torch.full((batch, num_beams), -1e9, device=device)
    totals[:, 0] = 0.0
    totals = totals.reshape(-1)
    kept: list[list[tuple[float, list[int]]]] = [[] for _ in range(batch)]
    done = [False] * batch
    while True:
        scores = processed_scores(
            logits.float().log_softmax(-1),
            sequences,
            eos_token_id=eos_token_id,
            min_length=min_length,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
            vocab_mask=vocab_mask,
        )
        words = scores.shape[1]
        scores = (scores + totals.unsqueeze(1)).reshape(batch, -1)
        best, index = scores.topk(2 * num_beams, dim=1)
        candidates = [
            [(score, at % words, at // words) for score, at in zip(*pair, strict=True)]
            for pair in zip(best.tolist(), index.tolist(), strict=True)
        ]
        chosen = settle_beams(
            kept,
            done,
            candidates,
            sequences.tolist(),
            num_beams,
            eos_token_id,
            pad_token_id,
            length_penalty,
            early_stopping,
        )
        totals = torch.tensor([c[0] for c in chosen], device=device)
        tokens = torch.tensor(
            [c[1] for c in chosen], dtype=sequences.dtype, device=device
        )
        origins = torch.tensor([c[2] for c in chosen], device=device)
        sequences = torch.cat([sequences[origins], tokens.unsqueeze(1)], dim=1)
        if all(done) or sequences.shape[1] >= max_length:
            break
        logits, states = advance(
            tokens.unsqueeze(1), sequences, [s[origins] for s in states]
        )
    last, sums = sequences.tolist(), totals.tolist()
    for sample in range(batch):
        if not done[sample]:
            beams = slice(sample * num_beams, (sample + 1) * num_beams)
            ended = list(zip(sums[beams], last[beams], strict=True))
            kept[sample] = keep_hypotheses(
                kept[sample], ended, num_beams, length_penalty
            )
    rows = [
        F.pad(torch.tensor(tokens), [0, max_length - len(tokens)], value=pad_token_id)
        for sample in kept
        for _, tokens in sample[:num_return_sequences]
    ]
    y = torch.stack(rows).to(sequences).reshape(batch, num_return_sequences, max_length)
    y_scores = torch.tensor(
        [[s for s, _ in k[:num_return_sequences]] for k in kept], device=device
    )
    return y, y_scores


def greedy_search(
    start: Callable[[], tuple[Tensor, list[Tensor]]],
    advance: Callable[[Tensor, Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]],
    sequences: Tensor,
    max_length: int,
    min_length: int = 0,
    repetition_penalty: float = 1.0,
    vocab_mask: Tensor | None = None,
    *,
    eos_token_id: int,
    pad_token_id: int,
    no_repeat_ngram_size: int = 0,
    choose: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """com.microsoft GreedySearch: the likeliest token, or what `choose` takes by the scores."""
    logits, states = start()
    ended = torch.zeros(sequences.shape[0], dtype=torch.bool, device=sequences.device)
    while True:
        scores = processed_scores(
            logits.float(),
            sequences,
            eos_token_id=eos_token_id,
            min_length=min_length,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
            vocab_mask=vocab_mask,
        )
        chosen = scores.argmax(-1) if choose is None else choose(scores)
        tokens = chosen.masked_fill(ended, pad_token_id).to(sequences.dtype)
        ended = ended | (tokens == eos_token_id)
        tokens = tokens.masked_fill(ended, pad_token_id)
        sequences = torch.cat([sequences, tokens.unsqueeze(1)], dim=1)
        if sequences.shape[1] >= max_length or bool(ended.all()):
            break
        logits, states = advance(tokens.unsqueeze(1), sequences, states)
    return F.pad(sequences, [0, max_length - sequences.shape[1]], value=pad_token_id)


def next_of_encoder_decoder(
    decoder: Callable[..., tuple[Tensor, ...]],
    tokens: Tensor,
    states: list[Tensor],
    takes_ids: bool,
    takes_states: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Logits and states after `tokens`, of a decoder that attends to an encoder's states."""
    ids, mask, hidden, *caches = states
    given = [tokens, ids, mask] if takes_ids else [tokens, mask]
    if takes_states:
        given.append(hidden)
    logits, *grown = decoder(*given, *caches)
    # The encoder's keys and values come after the decoder's own and stay as they are.
    return logits[:, -1], [ids, mask, hidden, *grown, *caches[len(grown) :]]


def encoder_decoder_steps(
    encoder: Callable[..., tuple[Tensor, ...]],
    decoder: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor, Tensor, Tensor],
    takes_ids: bool,
    takes_states: bool,
) -> tuple[
    Callable[[], tuple[Tensor, list[Tensor]]],
    Callable[[Tensor, Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]],
]:
    """The two steps of `beam_search` for an encoder with a decoder that keeps a cache."""

    def start() -> tuple[Tensor, list[Tensor]]:
        logits, hidden, *caches = encoder(*inputs)
        return logits[:, -1], [*inputs[:2], hidden, *caches]

    def advance(
        tokens: Tensor, _: Tensor, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        return next_of_encoder_decoder(decoder, tokens, states, takes_ids, takes_states)

    return start, advance


def first_of_decoder(
    decoder: Callable[..., tuple[Tensor, ...]],
    input_ids: Tensor,
    attention_mask: Tensor,
    cache: tuple[int, int, int],
    dtype: torch.dtype,
    words: int | None,
) -> tuple[Tensor, list[Tensor]]:
    """Logits and states after the prompt; `cache` is layers, heads and size."""
    layers, heads, size = cache
    shape = (2, input_ids.shape[0], heads, 0, size)
    past = [torch.zeros(shape, dtype=dtype, device=input_ids.device)] * layers
    places = (attention_mask.cumsum(1) - 1).clamp(min=0) * attention_mask
    logits, *present = decoder(input_ids, places.to(input_ids), attention_mask, *past)
    # Samples come first in every state.
    states = [attention_mask, attention_mask.sum(1, keepdim=True)]
    return logits[:, -1, :words], states + [p.transpose(0, 1) for p in present]


def next_of_decoder(
    decoder: Callable[..., tuple[Tensor, ...]],
    tokens: Tensor,
    states: list[Tensor],
    words: int | None,
) -> tuple[Tensor, list[Tensor]]:
    """Logits and states after `tokens`."""
    mask, place, *past = states
    mask = F.pad(mask, [0, 1], value=1)
    cached = [p.transpose(0, 1).contiguous() for p in past]
    logits, *present = decoder(tokens, place.to(tokens), mask, *cached)
    grown = [p.transpose(0, 1) for p in present]
    return logits[:, -1, :words], [mask, place + 1, *grown]


def decoder_steps(
    decoder: Callable[..., tuple[Tensor, ...]],
    init_decoder: Callable[..., tuple[Tensor, ...]] | None,
    prompt: tuple[Tensor, Tensor],
    cache: tuple[int, int, int],
    dtype: torch.dtype,
    vocab_size: int,
) -> tuple[
    Callable[[], tuple[Tensor, list[Tensor]]],
    Callable[[Tensor, Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]],
]:
    """The two steps of `beam_search` for a decoder alone."""
    words = None if vocab_size < 0 else vocab_size
    first = decoder if init_decoder is None else init_decoder

    def start() -> tuple[Tensor, list[Tensor]]:
        return first_of_decoder(first, *prompt, cache, dtype, words)

    def advance(
        tokens: Tensor, _: Tensor, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        return next_of_decoder(decoder, tokens, states, words)

    return start, advance


def visible_tokens(
    input_ids: Tensor, attention_mask: Tensor | None, pad_token_id: int
) -> Tensor:
    """The mask that was given, else one of what is no padding."""
    if attention_mask is not None:
        return attention_mask
    return (input_ids != pad_token_id).to(input_ids.dtype)


def beam_search_encoder_decoder(
    encoder: Callable[..., tuple[Tensor, ...]],
    decoder: Callable[..., tuple[Tensor, ...]],
    input_ids: Tensor,
    max_length: int,
    min_length: int,
    num_beams: int,
    num_return_sequences: int,
    length_penalty: float = 1.0,
    repetition_penalty: float = 1.0,
    vocab_mask: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *,
    eos_token_id: int,
    pad_token_id: int,
    decoder_start_token_id: int,
    takes_ids: bool = False,
    takes_states: bool = False,
    no_repeat_ngram_size: int = 0,
    early_stopping: int = 0,
) -> tuple[Tensor, Tensor]:
    """com.microsoft BeamSearch over an encoder and a decoder."""
    first = torch.full_like(input_ids[:, :1], decoder_start_token_id)
    mask = visible_tokens(input_ids, attention_mask, pad_token_id)
    start, advance = encoder_decoder_steps(
        encoder, decoder, (input_ids, mask, first), takes_ids, takes_states
    )
    return beam_search(
        start,
        advance,
        first,
        max_length,
        min_length,
        num_beams,
        num_return_sequences,
        length_penalty,
        repetition_penalty,
        vocab_mask,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        no_repeat_ngram_size=no_repeat_ngram_size,
        early_stopping=early_stopping,
    )


def beam_search_decoder(
    decoder: Callable[..., tuple[Tensor, ...]],
    init_decoder: Callable[..., tuple[Tensor, ...]] | None,
    input_ids: Tensor,
    max_length: int,
    min_length: int,
    num_beams: int,
    num_return_sequences: int,
    length_penalty: float = 1.0,
    repetition_penalty: float = 1.0,
    vocab_mask: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *,
    cache: tuple[int, int, int],
    dtype: torch.dtype,
    eos_token_id: int,
    pad_token_id: int,
    vocab_size: int = -1,
    no_repeat_ngram_size: int = 0,
    early_stopping: int = 0,
) -> tuple[Tensor, Tensor]:
    """com.microsoft BeamSearch over a decoder alone."""
    mask = visible_tokens(input_ids, attention_mask, pad_token_id)
    start, advance = decoder_steps(
        decoder, init_decoder, (input_ids, mask), cache, dtype, vocab_size
    )
    return beam_search(
        start,
        advance,
        input_ids,
        max_length,
        min_length,
        num_beams,
        num_return_sequences,
        length_penalty,
        repetition_penalty,
        vocab_mask,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        no_repeat_ngram_size=no_repeat_ngram_size,
        early_stopping=early_stopping,
    )


def greedy_search_decoder(
    decoder: Callable[..., tuple[Tensor, ...]],
    init_decoder: Callable[..., tuple[Tensor, ...]] | None,
    input_ids: Tensor,
    max_length: int,
    min_length: int = 0,
    repetition_penalty: float = 1.0,
    vocab_mask: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *,
    cache: tuple[int, int, int],
    dtype: torch.dtype,
    eos_token_id: int,
    pad_token_id: int,
    vocab_size: int = -1,
    no_repeat_ngram_size: int = 0,
) -> Tensor:
    """com.microsoft GreedySearch over a decoder."""
    mask = visible_tokens(input_ids, attention_mask, pad_token_id)
    start, advance = decoder_steps(
        decoder, init_decoder, (input_ids, mask), cache, dtype, vocab_size
    )
    return greedy_search(
        start,
        advance,
        input_ids,
        max_length,
        min_length,
        repetition_penalty,
        vocab_mask,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        no_repeat_ngram_size=no_repeat_ngram_size,
    )


def likeliest_part(
    scores: Tensor,
    top_p: float,
    min_tokens_to_keep: int,
    filter_value: float,
    custom: int,
) -> Tensor:
    """Scores [batch, words] but for `filter_value` outside the likeliest words that make `top_p`."""
    ranked, order = scores.sort(-1, descending=bool(custom))
    total = ranked.softmax(-1).cumsum(-1)
    if custom:
        # The word that passes the limit is kept, and so is the first.
        dropped = F.pad(total > top_p, (1, 0))[:, :-1]
    else:
        dropped = total <= 1 - top_p
        places = torch.arange(scores.shape[1], device=scores.device)
        dropped = dropped & (places < max(scores.shape[1] - min_tokens_to_keep, 1))
    dropped = torch.zeros_like(dropped).scatter(-1, order, dropped)
    # The default is the lowest number of float32, which halves do not hold.
    return torch.where(dropped, torch.tensor(filter_value).to(scores), scores)


def sampling_decoder(
    decoder: Callable[..., tuple[Tensor, ...]],
    init_decoder: Callable[..., tuple[Tensor, ...]] | None,
    input_ids: Tensor,
    max_length: int,
    min_length: int = 0,
    repetition_penalty: float = 1.0,
    vocab_mask: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *,
    cache: tuple[int, int, int],
    dtype: torch.dtype,
    eos_token_id: int,
    pad_token_id: int,
    vocab_size: int = -1,
    no_repeat_ngram_size: int = 0,
    top_p: float = 0.0,
    temperature: float = 1.0,
    min_tokens_to_keep: int = 0,
    filter_value: float = -1e20,
    custom: int = 0,
    seed: int | None = None,
) -> Tensor:
    """com.microsoft Sampling over a decoder: GreedySearch that draws among the likeliest words."""
    mask = visible_tokens(input_ids, attention_mask, pad_token_id)
    start, advance = decoder_steps(
        decoder, init_decoder, (input_ids, mask), cache, dtype, vocab_size
    )
    generator = None
    if seed is not None:
        generator = torch.Generator(input_ids.device).manual_seed(seed)

    def choose(scores: Tensor) -> Tensor:
        if temperature > 0:
            scores = scores / temperature
        kept = likeliest_part(scores, top_p, min_tokens_to_keep, filter_value, custom)
        chances = kept.softmax(-1)
        return torch.multinomial(chances, 1, generator=generator).squeeze(1)

    return greedy_search(
        start,
        advance,
        input_ids,
        max_length,
        min_length,
        repetition_penalty,
        vocab_mask,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        no_repeat_ngram_size=no_repeat_ngram_size,
        choose=choose,
    )
