/* A user of the C interface: a model that converts, is written and simplified; what is refused, and how.
 *
 *     client MODEL.onnx FOLDER
 */
#include <onnx2nn/onnx2nn.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

static void check(int holds, const char *what, const onnx2nn_result *result) {
  if (holds) return;
  ++failures;
  fprintf(stderr, "FAILED: %s\n%s", what, onnx2nn_diagnostics(result).data);
}

static int contains(onnx2nn_text text, const char *part) {
  return strlen(text.data) == text.size && strstr(text.data, part) != NULL;
}

static int stop(void *context) {
  ++*(int *)context;
  return 1;
}

/* The bytes of a file, NULL where it cannot be read. */
static void *read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  void *bytes = NULL;
  long length;
  *size = 0;
  if (file == NULL) return NULL;
  if (fseek(file, 0, SEEK_END) == 0 && (length = ftell(file)) > 0 && fseek(file, 0, SEEK_SET) == 0) {
    bytes = malloc((size_t)length);
    if (bytes != NULL) *size = fread(bytes, 1, (size_t)length, file);
  }
  fclose(file);
  return bytes;
}

static void convert(const char *model, const char *folder, const void *bytes, size_t size) {
  onnx2nn_result *from_file = NULL;
  onnx2nn_result *from_bytes = NULL;
  onnx2nn_text weight;
  const char *one;
  const char *two;
  char path[4096];
  void *written;
  size_t written_size;

  check(onnx2nn_convert_file(model, NULL, &from_file) == ONNX2NN_DONE, "a model converts", from_file);
  check(contains(onnx2nn_source(from_file), "nn.Conv2d("), "its source has layers", from_file);
  check(contains(onnx2nn_json(from_file), "\"class_name\": \"Digits\""), "its JSON has its class", from_file);

  check(onnx2nn_convert_bytes(bytes, size, "digits", "{\"simplify\": true, \"input_shapes\": null}",
                              &from_bytes) == ONNX2NN_DONE,
        "bytes convert", from_bytes);
  /* The lines above the classes name the file. */
  one = strstr(onnx2nn_source(from_file).data, "\nclass ");
  two = strstr(onnx2nn_source(from_bytes).data, "\nclass ");
  check(one != NULL && two != NULL && strcmp(one, two) == 0, "both sources are one", from_bytes);

  check(contains(onnx2nn_modules(from_file), "\"path\": \"layer1.conv1\"") &&
            contains(onnx2nn_modules(from_file), "\"Conv2d\""),
        "its modules are listed", from_file);
  check(onnx2nn_weight_count(from_file) > 0, "it has weights", from_file);
  check(onnx2nn_weight(from_file, 0, 0, &weight) == ONNX2NN_DONE && weight.size > 0, "a weight has bytes",
        from_file);
  check(onnx2nn_weight(from_file, onnx2nn_weight_count(from_file), 0, &weight) == ONNX2NN_USAGE &&
            weight.size == 0,
        "there is no weight behind the last", from_file);
  check(onnx2nn_weight(from_file, 0, 1, &weight) == ONNX2NN_USAGE, "a weight has no second piece", from_file);

  snprintf(path, sizeof path, "%s/page.py", folder);
  check(onnx2nn_write(from_file, path, NULL) == ONNX2NN_DONE, "source and weights are written", from_file);
  check(contains(onnx2nn_json(from_file), "page.safetensors"), "its JSON lists the files", from_file);
  written = read_file(path, &written_size);
  check(written != NULL && written_size > 0, "the source is there", from_file);
  if (written != NULL) {
    ((char *)written)[written_size - 1] = '\0';
    check(strstr(written, "\"page.safetensors\"") != NULL, "it loads what was written", from_file);
  }
  free(written);
  snprintf(path, sizeof path, "%s/page.pt", folder);
  check(onnx2nn_write(from_bytes, path, NULL) == ONNX2NN_DONE, "TorchScript is written", from_bytes);

  snprintf(path, sizeof path, "%s/page.pth", folder);
  check(onnx2nn_write(from_bytes, path, NULL) == ONNX2NN_USAGE, "its source loads no .pth", from_bytes);

  /* Somebody else's file stays. */
  check(onnx2nn_write(from_bytes, model, NULL) != ONNX2NN_DONE, "the model is not replaced", from_bytes);
  check(onnx2nn_write(from_bytes, NULL, NULL) == ONNX2NN_USAGE, "a path is needed", from_bytes);
  check(onnx2nn_result_status(from_bytes) == ONNX2NN_USAGE, "the handle has its last status", from_bytes);
  snprintf(path, sizeof path, "%s/again.pt", folder);
  check(onnx2nn_write(from_bytes, path, NULL) == ONNX2NN_DONE, "what failed before is no matter", from_bytes);
  check(onnx2nn_diagnostics(from_bytes).size == 0, "nor is it said any longer", from_bytes);
  onnx2nn_free(from_bytes);
  onnx2nn_free(from_file);
}

static void simplify(const char *model, const char *folder, const void *bytes, size_t size) {
  onnx2nn_result *result = NULL;
  char path[4096];

  check(onnx2nn_simplify_bytes(bytes, size, NULL, NULL, NULL, &result) == ONNX2NN_DONE, "bytes simplify", result);
  check(onnx2nn_model(result).size > 0, "the smaller model is there", result);
  check(contains(onnx2nn_json(result), "\"nodes_after\""), "its JSON counts nodes", result);
  check(onnx2nn_write(result, "x.py", NULL) == ONNX2NN_USAGE, "it is no conversion", result);
  onnx2nn_free(result);

  snprintf(path, sizeof path, "%s/made/small.onnx", folder);
  check(onnx2nn_simplify_file(model, path, "{\"only\": []}", &result) == ONNX2NN_DONE, "a file simplifies", result);
  check(onnx2nn_model(result).size == 0, "what was written is not in memory", result);
  onnx2nn_free(result);
  check(onnx2nn_simplify_file(model, NULL, "{\"stop_after\": -1}", &result) == ONNX2NN_USAGE,
        "rewrites are not negative", result);
  onnx2nn_free(result);
}

static void files(const char *model, const char *folder) {
  static const char *const kWords[] = {"convert", "m\xff.onnx", "--fuse"};
  onnx2nn_result *result = NULL;
  char path[4096];
  char options[8192];

  check(onnx2nn_output_paths(model, "x.pth", &result) == ONNX2NN_DONE, "a conversion has its place", result);
  check(strcmp(onnx2nn_json_of(result, "source").data, "\"x.py\"") == 0, "the source is beside the weights", result);
  check(strcmp(onnx2nn_json_of(result, "nothing").data, "null") == 0, "there is no such member", result);
  onnx2nn_free(result);
  check(onnx2nn_output_paths(model, "x.doc", &result) == ONNX2NN_USAGE, "no output is called so", result);
  onnx2nn_free(result);
  check(onnx2nn_simplified_path("a/m.onnx", "b/", &result) == ONNX2NN_DONE, "a simplified model has its place", result);
  check(strcmp(onnx2nn_json_of(result, "path").data, "\"b/m-simple.onnx\"") == 0, "in the folder", result);
  onnx2nn_free(result);

  snprintf(options, sizeof options, "{\"paths\": [\"%s\"]}", model);
  check(onnx2nn_check_outputs(NULL, options, &result) == ONNX2NN_UNREADABLE, "somebody else's file", result);
  check(contains(onnx2nn_json(result), "would-overwrite"), "it would be lost", result);
  onnx2nn_free(result);
  check(onnx2nn_check_outputs(NULL, "{\"paths\": [\"\\udcff\\u0000\"]}", &result) == ONNX2NN_USAGE, "no path", result);
  onnx2nn_free(result);
  check(onnx2nn_external_files(NULL, "{\"locations\": [\"none\"]}", &result) == ONNX2NN_DONE, "nothing is there", result);
  check(strcmp(onnx2nn_json_of(result, "files").data, "{}") == 0, "so nothing is found", result);
  onnx2nn_free(result);

  snprintf(options, sizeof options, "{\"staging\": \"%s\"}", folder);
  snprintf(path, sizeof path, "%s/staged/small.onnx", folder);
  check(onnx2nn_simplify_file(model, path, options, &result) == ONNX2NN_DONE, "a model is staged", result);
  check(onnx2nn_publish(result) == ONNX2NN_DONE && contains(onnx2nn_json(result), "small.onnx"), "it is published",
        result);
  onnx2nn_free(result);
  check(onnx2nn_convert_file(model, NULL, &result) == ONNX2NN_DONE, "a model converts", result);
  check(onnx2nn_publish(result) == ONNX2NN_USAGE, "it was not staged", result);
  onnx2nn_free(result);

  check(onnx2nn_parse_command_line(kWords, 3, 80, &result) == ONNX2NN_DONE, "words are read", result);
  check(contains(onnx2nn_json_of(result, "values"), "\"m\\udcff.onnx\""), "a byte is kept", result);
  onnx2nn_free(result);
  check(onnx2nn_parse_command_line(NULL, 1, 80, &result) == ONNX2NN_USAGE, "words that are NULL", result);
  onnx2nn_free(result);
  check(onnx2nn_command_line(&result) == ONNX2NN_DONE && contains(onnx2nn_json(result), "exit_codes"), "a table", result);
  onnx2nn_free(result);
  check(onnx2nn_printable("a\nb", 3, &result) == ONNX2NN_DONE, "text is shown", result);
  check(strcmp(onnx2nn_json_of(result, "text").data, "\"a\\\\nb\"") == 0, "on one line", result);
  onnx2nn_free(result);
}

static void refuse(const char *model, const void *bytes, size_t size) {
  static const char *const kWrong[] = {"",
                                       "[]",
                                       "{",
                                       "{\"simplfy\": true}",
                                       "{\"simplify\": 1}",
                                       "{\"input_shapes\": [1]}",
                                       "{\"input_shapes\": {\"input\": [1.5]}}",
                                       "{\"max_shard_size\": \"much\"}",
                                       "{\"custom_ops\": [{}]}",
                                       "{\"opset\": 18446744073709551615}",
                                       "{\"dynamic\": {\"no such input\": 0}}"};
  onnx2nn_result *result = NULL;
  int asked = 0;
  size_t i;

  for (i = 0; i < sizeof kWrong / sizeof *kWrong; ++i) {
    check(onnx2nn_convert_file(model, kWrong[i], &result) == ONNX2NN_USAGE, kWrong[i], result);
    check(onnx2nn_diagnostics(result).size > 0 && contains(onnx2nn_json(result), "\"exit_code\": 2"),
          "what is wrong is said", result);
    onnx2nn_free(result);
  }
  check(onnx2nn_convert_bytes("not a model", 11, NULL, NULL, &result) == ONNX2NN_UNREADABLE, "no model", result);
  check(onnx2nn_source(result).size == 0 && onnx2nn_weight_count(result) == 0 &&
            onnx2nn_modules(result).size == 0,
        "nothing came of it", result);
  onnx2nn_free(result);
  check(onnx2nn_convert_bytes(bytes, size / 2, NULL, NULL, &result) == ONNX2NN_UNREADABLE, "half a model", result);
  onnx2nn_free(result);
  check(onnx2nn_convert_bytes(NULL, 5, NULL, NULL, &result) == ONNX2NN_USAGE, "bytes that are NULL", result);
  onnx2nn_free(result);
  check(onnx2nn_convert_file("no such file", NULL, &result) == ONNX2NN_UNREADABLE, "no file", result);
  onnx2nn_free(result);
  check(onnx2nn_convert_file(NULL, NULL, &result) == ONNX2NN_USAGE, "a path that is NULL", result);
  onnx2nn_free(result);
  check(onnx2nn_convert_file(model, NULL, NULL) == ONNX2NN_USAGE, "nowhere to put the handle", NULL);
  check(onnx2nn_write(NULL, "x.py", NULL) == ONNX2NN_USAGE, "no handle", NULL);
  check(onnx2nn_result_status(NULL) == ONNX2NN_USAGE && onnx2nn_source(NULL).size == 0, "no handle", NULL);
  onnx2nn_free(NULL);

  onnx2nn_set_interrupt(stop, &asked);
  check(onnx2nn_convert_file(model, NULL, &result) == ONNX2NN_CANCELLED && asked > 0, "it is stopped", result);
  onnx2nn_free(result);
  onnx2nn_set_interrupt(NULL, NULL);
}

int main(int argc, char **argv) {
  onnx2nn_result *result = NULL;
  size_t size = 0;
  void *bytes;
  if (argc != 3) return 2;
  bytes = read_file(argv[1], &size);
  if (bytes == NULL) return 2;

  check(strchr(onnx2nn_version(), '.') != NULL, "there is a version", NULL);
  convert(argv[1], argv[2], bytes, size);
  simplify(argv[1], argv[2], bytes, size);
  files(argv[1], argv[2]);
  refuse(argv[1], bytes, size);

  check(onnx2nn_inspect_file(argv[1], NULL, &result) == ONNX2NN_DONE, "a model is looked at", result);
  check(contains(onnx2nn_json(result), "\"convertible\": true"), "it would convert", result);
  check(strcmp(onnx2nn_json_of(result, "multiply_adds").data, "\"844224*batch\"") == 0, "its work is counted", result);
  check(contains(onnx2nn_json_of(result, "operators"), "\"Conv\": {\"nodes\": "), "by operator", result);
  check(contains(onnx2nn_json_of(result, "blocks"), "\"path\": \"layer1\""), "by block", result);
  check(strcmp(onnx2nn_json_of(result, "node_list").data, "null") == 0, "nodes are not listed", result);
  onnx2nn_free(result);
  check(onnx2nn_inspect_bytes(bytes, size, NULL, "{\"nodes\": true}", &result) == ONNX2NN_DONE, "so are bytes", result);
  check(contains(onnx2nn_json_of(result, "node_list"), "\"op_type\": \"Conv\""), "nodes are listed", result);
  onnx2nn_free(result);
  check(onnx2nn_inspect_file(argv[1], "{\"convert\": false}", &result) == ONNX2NN_DONE, "figures alone", result);
  check(strcmp(onnx2nn_json_of(result, "convertible").data, "null") == 0 &&
            contains(onnx2nn_json_of(result, "outputs"), "\"scores\""),
        "nothing is converted", result);
  onnx2nn_free(result);
  check(onnx2nn_inspect_file("no such file", NULL, &result) == ONNX2NN_UNREADABLE, "no file", result);
  check(strcmp(onnx2nn_json_of(result, "readable").data, "false") == 0, "it could not be read", result);
  onnx2nn_free(result);
  check(onnx2nn_operators(&result) == ONNX2NN_DONE && contains(onnx2nn_json(result), "\"Conv\""), "operators", result);
  onnx2nn_free(result);
  check(onnx2nn_rules(&result) == ONNX2NN_DONE && contains(onnx2nn_json(result), "\"fold-constants\""), "rules", result);
  onnx2nn_free(result);
  free(bytes);
  return failures == 0 ? 0 : 1;
}
