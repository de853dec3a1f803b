"""Text generation of com.microsoft: the loops around a decoder that is a nested graph."""

from collections.abc import Callable, Sequence

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
    best = list(kept)
    for total, tokens in ended:
        score = total / len(tokens) ** power
        place = len(best)
        while place > 0 and best[place - 1][0] < score:
            place -= 1
        best.insert(place, (score, tokens))
    return best[:beams]


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


def first_beams(
    input_ids: Tensor, beams: int
) -> tuple[Tensor, Tensor, list[list[tuple[float, list[int]]]], list[bool]]:
    """Before the first step: all beams' sequences and totals, and each sample's finished ones."""
    batch = input_ids.shape[0]
    totals = torch.full((batch, beams), -1e9, device=input_ids.device)
    totals[:, 0] = 0.0
    nothing: list[tuple[float, list[int]]] = []
    sequences = input_ids.repeat_interleave(beams, 0)
    return sequences, totals.reshape(-1), [nothing] * batch, [False] * batch


def beam_candidates(
    scores: Tensor, totals: Tensor, batch: int, count: int
) -> list[list[tuple[float, int, int]]]:
    """Of each sample the `count` best ways to go on, best first: total, token and beam."""
    words = scores.shape[1]
    best, index = (scores + totals.unsqueeze(1)).reshape(batch, -1).topk(count, dim=1)
    sums: list[float] = best.flatten().tolist()
    places: list[int] = index.flatten().tolist()
    options = [
        (total, at % words, at // words) for total, at in zip(sums, places, strict=True)
    ]
    return [options[i * count : (i + 1) * count] for i in range(batch)]


def beam_step(
    logits: Tensor,
    sequences: Tensor,
    totals: Tensor,
    kept: list[list[tuple[float, list[int]]]],
    done: list[bool],
    num_beams: int,
    *,
    eos_token_id: int,
    pad_token_id: int,
    length_penalty: float,
    early_stopping: int,
    min_length: int,
    repetition_penalty: float,
    no_repeat_ngram_size: int,
    vocab_mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sequences and totals with one token more, by logits [beams, words], and the beams that they come from.

    `kept` and `done` change in place.
    """
    device = sequences.device
    scores = processed_scores(
        logits.float().log_softmax(-1),
        sequences,
        eos_token_id=eos_token_id,
        min_length=min_length,
        repetition_penalty=repetition_penalty,
        no_repeat_ngram_size=no_repeat_ngram_size,
        vocab_mask=vocab_mask,
    )
    chosen = settle_beams(
        kept,
        done,
        beam_candidates(scores, totals, len(done), 2 * num_beams),
        [row.tolist() for row in sequences.unbind()],
        num_beams,
        eos_token_id,
        pad_token_id,
        length_penalty,
        early_stopping,
    )
    totals = torch.tensor([c[0] for c in chosen], device=device)
    tokens = torch.tensor([c[1] for c in chosen], device=device).to(sequences)
    origins = torch.tensor([c[2] for c in chosen], device=device)
    sequences = torch.cat([sequences[origins], tokens.unsqueeze(1)], dim=1)
    return sequences, totals, origins


def best_sequences(
    sequences: Tensor,
    totals: Tensor,
    kept: list[list[tuple[float, list[int]]]],
    done: list[bool],
    num_beams: int,
    num_return_sequences: int,
    max_length: int,
    *,
    pad_token_id: int,
    length_penalty: float,
) -> tuple[Tensor, Tensor]:
    """The sequences [batch, results, max_length] of a search and their scores [batch, results]."""
    rows: list[Tensor] = []
    scores: list[float] = []
    sums: list[float] = totals.tolist()
    last = [row.tolist() for row in sequences.unbind()]
    for sample, ended in enumerate(kept):
        best = ended
        if not done[sample]:
            first = sample * num_beams
            going = [(sums[i], last[i]) for i in range(first, first + num_beams)]
            best = keep_hypotheses(ended, going, num_beams, length_penalty)
        for score, tokens in best[:num_return_sequences]:
            short = max_length - len(tokens)
            rows.append(F.pad(torch.tensor(tokens), [0, short], value=pad_token_id))
            scores.append(score)
    shape = (len(kept), num_return_sequences)
    y = torch.stack(rows).to(sequences).reshape(len(kept), -1, max_length)
    return y, torch.tensor(scores, device=sequences.device).reshape(shape)


def prompt_inputs(
    input_ids: Tensor,
    attention_mask: Tensor,
    cache: tuple[int, int, int],
    dtype: torch.dtype,
) -> list[Tensor]:
    """What a decoder takes before the first step; `cache` is layers, heads and size."""
    layers, heads, size = cache
    shape = (2, input_ids.shape[0], heads, 0, size)
    past = [torch.zeros(shape, dtype=dtype, device=input_ids.device)] * layers
    places = (attention_mask.cumsum(1) - 1).clamp(min=0) * attention_mask
    return [input_ids, places.to(input_ids), attention_mask, *past]


def next_inputs(
    tokens: Tensor, attention_mask: Tensor, present: Sequence[Tensor]
) -> list[Tensor]:
    """What a decoder takes to go on: `tokens` [batch, 1], and the keys and values so far."""
    place = attention_mask.sum(1, keepdim=True)
    mask = F.pad(attention_mask, [0, 1], value=1)
    return [tokens, place.to(tokens), mask, *present]


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
    outputs = encoder(input_ids, mask, first)
    logits = outputs[0].repeat_interleave(num_beams, 0)
    context = [mask, *outputs[1:2]] if takes_states else [mask]
    context = [input_ids, *context] if takes_ids else context
    context = [x.repeat_interleave(num_beams, 0) for x in context]
    caches = [x.repeat_interleave(num_beams, 0) for x in outputs[2:]]
    sequences, totals, kept, done = first_beams(first, num_beams)
    while True:
        sequences, totals, origins = beam_step(
            logits[:, -1],
            sequences,
            totals,
            kept,
            done,
            num_beams,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            min_length=min_length,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
            vocab_mask=vocab_mask,
        )
        if all(done) or sequences.shape[1] >= max_length:
            break
        caches = [x[origins] for x in caches]
        outputs = decoder(sequences[:, -1:], *context, *caches)
        logits = outputs[0]
        # The encoder's keys and values come after the decoder's own and stay as they are.
        caches = [*outputs[1:], *caches[len(outputs) - 1 :]]
    return best_sequences(
        sequences,
        totals,
        kept,
        done,
        num_beams,
        num_return_sequences,
        max_length,
        pad_token_id=pad_token_id,
        length_penalty=length_penalty,
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
    words = None if vocab_size < 0 else vocab_size
    first = prompt_inputs(input_ids, mask, cache, dtype)
    outputs = decoder(*first) if init_decoder is None else init_decoder(*first)
    logits = outputs[0].repeat_interleave(num_beams, 0)
    mask = mask.repeat_interleave(num_beams, 0)
    present = [x.repeat_interleave(num_beams, 1) for x in outputs[1:]]
    sequences, totals, kept, done = first_beams(input_ids, num_beams)
    while True:
        sequences, totals, origins = beam_step(
            logits[:, -1, :words],
            sequences,
            totals,
            kept,
            done,
            num_beams,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            min_length=min_length,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
            vocab_mask=vocab_mask,
        )
        if all(done) or sequences.shape[1] >= max_length:
            break
        given = next_inputs(
            sequences[:, -1:], mask[origins], [x[:, origins] for x in present]
        )
        outputs = decoder(*given)
        mask, logits, present = given[2], outputs[0], list(outputs[1:])
    return best_sequences(
        sequences,
        totals,
        kept,
        done,
        num_beams,
        num_return_sequences,
        max_length,
        pad_token_id=pad_token_id,
        length_penalty=length_penalty,
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
    words = None if vocab_size < 0 else vocab_size
    first = prompt_inputs(input_ids, mask, cache, dtype)
    outputs = decoder(*first) if init_decoder is None else init_decoder(*first)
    sequences = input_ids
    ended = torch.zeros(sequences.shape[0], dtype=torch.bool, device=sequences.device)
    while True:
        scores = processed_scores(
            outputs[0][:, -1, :words].float(),
            sequences,
            eos_token_id=eos_token_id,
            min_length=min_length,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
            vocab_mask=vocab_mask,
        )
        chosen = scores.argmax(-1)
        tokens = chosen.masked_fill(ended, pad_token_id).to(sequences.dtype)
        ended = ended | (tokens == eos_token_id)
        tokens = tokens.masked_fill(ended, pad_token_id).unsqueeze(1)
        sequences = torch.cat([sequences, tokens], dim=1)
        if sequences.shape[1] >= max_length or bool(ended.all()):
            break
        given = next_inputs(tokens, mask, outputs[1:])
        mask, outputs = given[2], decoder(*given)
    return F.pad(sequences, [0, max_length - sequences.shape[1]], value=pad_token_id)


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
    words = None if vocab_size < 0 else vocab_size
    first = prompt_inputs(input_ids, mask, cache, dtype)
    outputs = decoder(*first) if init_decoder is None else init_decoder(*first)
    generator: torch.Generator | None = None
    if seed is not None:
        generator = torch.Generator(input_ids.device).manual_seed(seed)
    sequences = input_ids
    ended = torch.zeros(sequences.shape[0], dtype=torch.bool, device=sequences.device)
    while True:
        scores = processed_scores(
            outputs[0][:, -1, :words].float(),
            sequences,
            eos_token_id=eos_token_id,
            min_length=min_length,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
            vocab_mask=vocab_mask,
        )
        if temperature > 0:
            scores = scores / temperature
        kept = likeliest_part(scores, top_p, min_tokens_to_keep, filter_value, custom)
        drawn = torch.multinomial(kept.softmax(-1), 1, generator=generator)
        chosen = drawn.squeeze(1)
        tokens = chosen.masked_fill(ended, pad_token_id).to(sequences.dtype)
        ended = ended | (tokens == eos_token_id)
        tokens = tokens.masked_fill(ended, pad_token_id).unsqueeze(1)
        sequences = torch.cat([sequences, tokens], dim=1)
        if sequences.shape[1] >= max_length or bool(ended.all()):
            break
        given = next_inputs(tokens, mask, outputs[1:])
        mask, outputs = given[2], decoder(*given)
    return F.pad(sequences, [0, max_length - sequences.shape[1]], value=pad_token_id)
