/* The C interface: an ONNX model in; PyTorch source and weights, or a smaller ONNX model, out.
 *
 *     onnx2nn_result *result;
 *     if (onnx2nn_convert_file("model.onnx", NULL, &result) == ONNX2NN_DONE)
 *       onnx2nn_write(result, "model.py", NULL);
 *     fputs(onnx2nn_diagnostics(result).data, stderr);
 *     onnx2nn_free(result);
 *
 * Ownership. A function that takes `result` puts a new handle there, whatever its status is, which the caller
 * frees once with onnx2nn_free; NULL where there was no memory even for that. Nothing keeps what it is given
 * after it has returned. All text belongs to the handle that it was asked of.
 *
 * Encodings. Text is UTF-8 and ends with a NUL that its size leaves out. Text of a model that is no UTF-8
 * has U+FFFD in its place. JSON is in ASCII. Paths are bytes of the file system, on Windows
 * UTF-8; in JSON they are UTF-8, where a byte that is none is \udc80 to \udcff, as Python has it.
 *
 * Threads. Functions may run on several threads at once, on handles that differ. One handle is for one thread
 * at a time.
 *
 * Errors. Each outcome is a status; the text for people is that of onnx2nn_diagnostics, the one for programs in
 * onnx2nn_json. No C++ exception leaves a function. Any argument may be NULL: where that makes no sense the
 * status is ONNX2NN_USAGE, and what is asked of a NULL handle is empty.
 *
 * Options are a JSON object, or NULL for none. They have the names of the Python functions' options:
 *
 *   conversion, inspection
 *     "simplify"                 true or false; true where it is not given
 *     "fuse"                     folds batch norms and the like into the weights before them
 *     "flat"                     one class with all statements
 *     "class_name"               else from the model's name
 *     "weights_name"             a name in .pth is a state_dict, and only then can one be written; else .safetensors
 *     "max_shard_size"           bytes, or text such as "5GB"
 *     "comments_origin"          the node behind each line
 *     "tp_plan"                  a function that splits the model over processes
 *     "trace"                    x = _trace("name", x) after each statement
 *     "allow_unknown"            stubs for operators that are not known
 *     "custom_ops"               [{"domain": "", "op_type": "", "name": "", "source": "def ..."}, ...]
 *   inspection
 *     "nodes"                    lists each node as well
 *     "convert"                  true or false: whether to find out if it would convert; true where it is not given
 *   simplification
 *     "disabled", "only", "why_not"   lists of rules
 *     "stop_after"               rewrites
 *     "max_constant"             bytes of the largest folded constant, or text such as "1MB"
 *     "opset"                    of ai.onnx, to bring the model to first
 *     "external_data"            weights beside the model
 *     "staging"                  a folder to write to until onnx2nn_publish
 *   all
 *     "input_shapes"             {"x": [null, 3, "height", 224]}; null or -1 leaves a dim as it is
 *     "dynamic_batch"            opens the first dims of inputs
 *     "dynamic"                  {"x": [0, 2]} or {"x": 0}
 *     "force"                    replaces files that onnx2nn did not write
 *     "data_roots"               folders below which external data may lie besides the model's own
 *     "drop_undefined_outputs"   leaves out outputs that nothing defines
 *
 * A name that is not in the list is an error ("bad-type"), as is a value of another kind; a text that says no size or
 * no path is another ("bad-value").
 */
#ifndef ONNX2NN_ONNX2NN_H
#define ONNX2NN_ONNX2NN_H

#include <stddef.h>

#if defined(_WIN32) && defined(ONNX2NN_EXPORTS) /* while the library itself is compiled */
#define ONNX2NN_API __declspec(dllexport)
#elif defined(__GNUC__)
#define ONNX2NN_API __attribute__((visibility("default")))
#else
#define ONNX2NN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The exit codes of the command line. */
typedef enum onnx2nn_status {
  ONNX2NN_DONE = 0,
  ONNX2NN_REFUSED = 1,    /* the model cannot be converted */
  ONNX2NN_USAGE = 2,      /* options or arguments that are wrong, or do not fit the model */
  ONNX2NN_UNREADABLE = 3, /* no ONNX model, or a file that cannot be read or written */
  ONNX2NN_INTERNAL = 70,  /* our own fault, or no memory */
  ONNX2NN_CANCELLED = 130 /* stopped by the function given to onnx2nn_set_interrupt */
} onnx2nn_status;

/* Bytes of a handle; `data` is never NULL. They are there until the handle is freed or written again. */
typedef struct onnx2nn_text {
  const char *data;
  size_t size;
} onnx2nn_text;

/* What a call gave. */
typedef struct onnx2nn_result onnx2nn_result;

/* "0.1.0". It stays for as long as the library is loaded. */
ONNX2NN_API const char *onnx2nn_version(void);

/* Converts a model. Nothing is written: onnx2nn_write does that, and until then the files of the model
 * have to stay as they are. `name`, without a suffix, stands for the file in messages and is what classes and
 * files are called after; "model" where it is NULL. External data of bytes is looked for in "data_roots" only. */
ONNX2NN_API onnx2nn_status onnx2nn_convert_file(const char *path, const char *options, onnx2nn_result **result);
ONNX2NN_API onnx2nn_status onnx2nn_convert_bytes(const void *bytes, size_t size, const char *name,
                                                 const char *options, onnx2nn_result **result);

/* Writes a conversion, all files or none. `path`: x.py (weights in x.safetensors), x.pth or x.safetensors (source in
 * x.py), x.pt (one file of TorchScript), or a folder. `weights_path` says where weights go instead, or is NULL.
 * Folders on the way are made. The status and diagnostics of the handle are those of the writing then, and "files" in
 * its JSON lists what was written. */
ONNX2NN_API onnx2nn_status onnx2nn_write(onnx2nn_result *conversion, const char *path, const char *weights_path);

/* Simplifies a model and writes it to `out`, which may be `path`. Where `out` is NULL nothing is written, and
 * onnx2nn_model has the bytes. Nothing is checked by running it. */
ONNX2NN_API onnx2nn_status onnx2nn_simplify_file(const char *path, const char *out, const char *options,
                                                 onnx2nn_result **result);
ONNX2NN_API onnx2nn_status onnx2nn_simplify_bytes(const void *bytes, size_t size, const char *name, const char *out,
                                                  const char *options, onnx2nn_result **result);

/* Moves a model that was simplified with "staging" to its place. The status and diagnostics of the handle are those of
 * that then, and "files" in its JSON lists what was written. */
ONNX2NN_API onnx2nn_status onnx2nn_publish(onnx2nn_result *simplified);

/* What is in a model (parameters, multiply-adds, memory, by operator and by block; unused values; external files,
 * also those that are missing), and what would not convert, and why. ONNX2NN_REFUSED where it would not,
 * ONNX2NN_UNREADABLE where the model or its external data cannot be read: "readable" in the JSON is true then where it was
 * the data alone, and all that the model says of itself is there. */
ONNX2NN_API onnx2nn_status onnx2nn_inspect_file(const char *path, const char *options, onnx2nn_result **result);
ONNX2NN_API onnx2nn_status onnx2nn_inspect_bytes(const void *bytes, size_t size, const char *name,
                                                 const char *options, onnx2nn_result **result);

/* Tables: {"operators": [...]} that are known, {"rules": {...}} of the simplifier. */
ONNX2NN_API onnx2nn_status onnx2nn_operators(onnx2nn_result **result);
ONNX2NN_API onnx2nn_status onnx2nn_rules(onnx2nn_result **result);

/* Files. `model` is the path of the model, NULL where it came as bytes.
 * Where a conversion to `out` (see onnx2nn_write; NULL: the current folder) goes: {"source": "", "weights": ""}. */
ONNX2NN_API onnx2nn_status onnx2nn_output_paths(const char *model, const char *out, onnx2nn_result **result);
/* Where a simplified model goes, to a file, a folder, or (NULL) the current one: {"path": ""}. */
ONNX2NN_API onnx2nn_status onnx2nn_simplified_path(const char *model, const char *out, onnx2nn_result **result);
/* Why {"paths": [...], "force": false} may not be written: they are there and not by onnx2nn, or are the model.
 * Writing asks by itself; this is for asking before long work. */
ONNX2NN_API onnx2nn_status onnx2nn_check_outputs(const char *model, const char *options, onnx2nn_result **result);
/* Moves the finished file `made` to `path` by the same rules; {"force": true} as above. */
ONNX2NN_API onnx2nn_status onnx2nn_publish_file(const char *made, const char *path, const char *model,
                                                const char *options, onnx2nn_result **result);
/* Where external data lies, links resolved: {"locations": [...], "data_roots": [...]} gives {"files": {location: path}}
 * of what is there and may be read. */
ONNX2NN_API onnx2nn_status onnx2nn_external_files(const char *model, const char *options, onnx2nn_result **result);

/* What the command line of the Python package is made with. Its table: {"commands": [...], "exit_codes": [[0, "done"], ...]};
 * the request that words without the program's name make, help being `columns` wide: {"command", "values",
 * "text", "error", "usage", "json"}; what the core answers to a command that needs nothing of Python's, {"code": 0, "out": "",
 * "err": ""}; {"script": ""} that completes it in a shell; {"rule": ""} of the simplifier behind one of our
 * names or onnxsim's; {"text": ""} on one line, without anything that could steer a terminal. */
ONNX2NN_API onnx2nn_status onnx2nn_command_line(onnx2nn_result **result);
ONNX2NN_API onnx2nn_status onnx2nn_parse_command_line(const char *const *words, size_t count, size_t columns,
                                                      onnx2nn_result **result);
ONNX2NN_API onnx2nn_status onnx2nn_answer(const char *const *words, size_t count, size_t columns,
                                          onnx2nn_result **result);
ONNX2NN_API onnx2nn_status onnx2nn_completion(const char *shell, onnx2nn_result **result);
ONNX2NN_API onnx2nn_status onnx2nn_rule_of(const char *name, onnx2nn_result **result);
ONNX2NN_API onnx2nn_status onnx2nn_printable(const void *text, size_t size, onnx2nn_result **result);

/* The native program: its command line as `main` gets it, its exit code. Writes to stdout and stderr; until it returns,
 * SIGINT, SIGTERM and SIGHUP end what it does. */
ONNX2NN_API int onnx2nn_run(int argc, const char *const *argv);

/* The status that the last call gave for this handle; ONNX2NN_USAGE for NULL. */
ONNX2NN_API onnx2nn_status onnx2nn_result_status(const onnx2nn_result *result);

/* What went wrong, and warnings, as people read it; empty where there is nothing to say. */
ONNX2NN_API onnx2nn_text onnx2nn_diagnostics(const onnx2nn_result *result);

/* All that is known, as a JSON object: "exit_code" and "diagnostics" always; of conversions "readable", "class_name",
 * "inputs", "outputs", "weights", "stats", "files"; of simplifications "files", "simplified", "log"; of inspections
 * what `onnx2nn inspect --json` prints. See docs/json.md. */
ONNX2NN_API onnx2nn_text onnx2nn_json(const onnx2nn_result *result);

/* One member of that object, on one line: "null" where there is none. */
ONNX2NN_API onnx2nn_text onnx2nn_json_of(const onnx2nn_result *result, const char *member);

/* The source of a conversion; empty where it was refused. */
ONNX2NN_API onnx2nn_text onnx2nn_source(const onnx2nn_result *conversion);

/* The modules of a conversion as a JSON list, each before those inside it: "path" ("layer1.0"; "" is the model), "type"
 * (what its class is called) and "layer" (whether it is one of torch.nn). Empty where it was refused. */
ONNX2NN_API onnx2nn_text onnx2nn_modules(onnx2nn_result *conversion);

/* How many weights a conversion has, and the bytes of one as the model stores them: of `piece` where "pieces" in the
 * JSON is not empty, else `piece` is 0. "weights" in the JSON says dtype, shape and layout. The bytes are
 * there until the handle is freed. */
ONNX2NN_API size_t onnx2nn_weight_count(const onnx2nn_result *conversion);
ONNX2NN_API onnx2nn_status onnx2nn_weight(const onnx2nn_result *conversion, size_t weight, size_t piece,
                                          onnx2nn_text *bytes);

/* The bytes of a simplified model that was not written. */
ONNX2NN_API onnx2nn_text onnx2nn_model(const onnx2nn_result *simplified);

/* Frees a handle; NULL is none. */
ONNX2NN_API void onnx2nn_free(onnx2nn_result *result);

/* Has calls on this thread ask `check`, some twenty times a second, whether to stop: where it gives anything but 0 they
 * leave nothing behind and give ONNX2NN_CANCELLED. It must return: no longjmp, no exception. NULL asks nothing. */
ONNX2NN_API void onnx2nn_set_interrupt(int (*check)(void *context), void *context);

#ifdef __cplusplus
}
#endif

#endif
