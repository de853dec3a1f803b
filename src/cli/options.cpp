#include "cli/options.h"

#include <algorithm>

namespace onnx2nn::cli {
namespace {

constexpr std::string_view kCheck = "The check (it needs torch and ONNX Runtime)";
constexpr std::string_view kRules = "Rules";

// ---- What is given ----

constexpr Option kModel{.name = "model", .metavar = "MODEL", .kind = Kind::Path,
                        .help = "an ONNX file", .files = "onnx",
                        .has_place = true, .required = true};
constexpr Option kModelToConvert{.name = "model", .also = "--onnx_path", .metavar = "MODEL",
                                 .kind = Kind::Path, .help = "an ONNX file", .files = "onnx",
                                 .has_place = true, .required = true};
constexpr Option kModelToSimplify{.name = "model", .metavar = "MODEL", .kind = Kind::Path,
                                  .help = "an ONNX file", .files = "onnx",
                                  .has_place = true};
constexpr Option kMoreModels{
    .name = "more_models", .metavar = "MODEL...", .kind = Kind::Path,
    .help = "further ones, each by itself; what is written goes into one folder",
    .files = "onnx", .repeatable = true, .has_place = true, .python_only = true};
constexpr Option kModelsToVerify{
    .name = "more_models", .metavar = "MODEL...", .kind = Kind::Path,
    .help = "with --jobs: further ones, each compared with its own conversion",
    .files = "onnx", .repeatable = true, .has_place = true, .python_only = true};
constexpr Option kModelsToInspect{
    .name = "more_models", .metavar = "MODEL...", .kind = Kind::Path,
    .help = "further ones, beside each other in one table", .files = "onnx", .repeatable = true, .has_place = true};
constexpr Option kOther{.name = "other", .metavar = "OTHER", .kind = Kind::Path,
                        .help = "the ONNX file to compare it with", .files = "onnx", .has_place = true, .required = true};
constexpr Option kAll{.name = "all", .spellings = "--all", .help = "show all that differs, not the first of each kind"};
constexpr Option kListNodes{.name = "list_nodes", .spellings = "--nodes",
                            .help = "show each node: operator, shapes and multiply-adds"};
constexpr Option kJobs{.name = "jobs", .spellings = "--jobs", .also = "-j", .metavar = "N",
                       .kind = Kind::Whole,
                       .help = "of several models, how many are worked on at once, each in a process "
                               "of its own (default: 1)",
                       .python_only = true, .most = 1024};
constexpr Option kDataRoot{
    .name = "data_root", .spellings = "--data-root", .metavar = "DIR", .kind = Kind::Path,
    .help = "external data may lie below this folder too, not only beside the model",
    .files = "/", .repeatable = true};
constexpr Option kDropUndefined{.name = "drop_undefined_outputs",
                                .spellings = "--drop-undefined-outputs",
                                .help = "leave out graph outputs that nothing defines"};
constexpr Option kInputShape{
    .name = "input_shape", .spellings = "--input_shape",
    .also = "--input-shape --overwrite-input-shape", .metavar = "NAME:DIMS", .kind = Kind::Shape,
    .help = "fix the shape of an input, such as input:1,3,224,224; -1 or a name leaves a dim open",
    .repeatable = true};

constexpr Option kDynamicBatch{
    .name = "dynamic_batch", .spellings = "--dynamic-batch",
    .help = "open the first dim of the inputs, where the file fixes it but the graph takes any"};
constexpr Option kDynamic{
    .name = "dynamic", .spellings = "--dynamic", .metavar = "NAME:AXIS", .kind = Kind::FixedShape,
    .help = "open this dim of an input, such as input:2", .repeatable = true};

// ---- Conversion ----

constexpr Option kOutput{
    .name = "output", .spellings = "-o --output", .also = "--pytorch_path", .metavar = "OUTPUT",
    .kind = Kind::Path,
    .help = "x.py, x.pth for weights as a state_dict, x.pt for TorchScript, x.pt2 for torch.export "
            "or x.pte for ExecuTorch; or a folder to write into (default: MODEL.py here)",
    .has_place = true};
constexpr Option kSimplifyPath{.name = "simplify_path", .spellings = "--simplify_path",
                               .metavar = "FILE", .kind = Kind::Path,
                               .help = "write the simplified ONNX model too"};
constexpr Option kNoSimplify{.name = "no_simplify", .spellings = "--no-simplify",
                             .help = "convert the graph as it is"};
constexpr Option kClassName{.name = "class_name", .spellings = "--class-name", .metavar = "NAME",
                            .kind = Kind::Text, .help = "of the emitted class"};
constexpr Option kCommentsOrigin{.name = "comments_origin", .spellings = "--comments-origin",
                                 .help = "name the ONNX node behind each line"};
constexpr Option kFlat{.name = "flat", .spellings = "--flat",
                       .help = "write one class, and not one for each of the author's"};
constexpr Option kAllowUnknown{
    .name = "allow_unknown", .spellings = "--allow-unknown",
    .help = "write a stub that raises for each operator that is not known"};
constexpr Option kTpPlan{
    .name = "tp_plan", .spellings = "--tp-plan",
    .help = "write a function tp_plan() too, which splits the model over processes"};
constexpr Option kMaxShardSize{
    .name = "max_shard_size", .spellings = "--max-shard-size", .also = "--max_shard_size",
    .metavar = "SIZE", .kind = Kind::FileSize,
    .help = "above this size, such as 500MB or 2GiB, safetensors are several files and an index "
            "(default: 5GB)"};
constexpr Option kFuse{.name = "fuse", .spellings = "--fuse",
                       .help = "fold batch normalisation into weights, for inference"};

// ---- Output ----

constexpr Option kForce{.name = "force", .spellings = "--force",
                        .help = "replace files that onnx2nn did not write"};
constexpr Option kJson{.name = "json", .spellings = "--json",
                       .help = "print one JSON object and nothing else"};
constexpr Option kQuiet{.name = "quiet", .spellings = "-q --quiet",
                        .help = "print only what is wrong"};
constexpr Option kVerbose{.name = "verbose", .spellings = "-v --verbose",
                          .help = "say on stderr what is done, and how long each step takes",
                          .python_only = true};

// ---- The check ----

constexpr Option kNoCheck{.name = "no_check", .spellings = "--no-check", .also = "--no-verify",
                          .help = "do not check", .section = kCheck};
constexpr Option kInput{
    .name = "input", .spellings = "--input", .metavar = "FILE", .kind = Kind::Path,
    .help = "check with these inputs: an .npz of them by name, or one .npy for the only input",
    .files = "npz npy", .python_only = true, .section = kCheck};
constexpr Option kTestInputShape{
    .name = "test_input_shape", .spellings = "--test-input-shape", .metavar = "NAME:DIMS",
    .kind = Kind::FixedShape,
    .help = "the shape of an input to check with, such as input:1,3,224,224", .repeatable = true,
    .python_only = true, .section = kCheck};
constexpr Option kVerifyShape{
    .name = "test_input_shape", .spellings = "--input_shape",
    .also = "--input-shape --test-input-shape", .metavar = "NAME:DIMS", .kind = Kind::FixedShape,
    .help = "the shape of an input to check with, such as input:1,3,224,224", .repeatable = true,
    .python_only = true, .section = kCheck};
constexpr Option kSeed{.name = "seed", .spellings = "--seed", .metavar = "N", .kind = Kind::Whole,
                       .help = "of the random inputs", .fallback = "0", .python_only = true,
                       .section = kCheck};
constexpr Option kThreads{.name = "threads", .spellings = "--threads", .metavar = "N",
                          .kind = Kind::Whole, .help = "for ONNX Runtime; 0 leaves it to that",
                          .fallback = "0", .python_only = true, .section = kCheck, .most = 1024};
constexpr Option kNodes{
    .name = "nodes", .spellings = "--nodes", .metavar = "WHEN", .kind = Kind::Choice,
    .help = "check each node on the right inputs: always, never, or auto, which leaves it out only "
            "where the outputs agree and a run takes long",
    .fallback = "auto", .choices = "always auto never", .python_only = true, .section = kCheck};
constexpr Option kValues{
    .name = "nodes", .spellings = "--nodes", .metavar = "WHEN", .kind = Kind::Choice,
    .help = "check the values that both models name, each on the right inputs: always, never, or "
            "auto, which does so where outputs differ",
    .fallback = "auto", .choices = "always auto never", .python_only = true, .section = kCheck};
constexpr Option kAtol{.name = "atol", .spellings = "--atol", .metavar = "X", .kind = Kind::Number,
                       .help = "an output is right within this absolute difference",
                       .python_only = true, .section = kCheck};
constexpr Option kRtol{.name = "rtol", .spellings = "--rtol", .metavar = "X", .kind = Kind::Number,
                       .help = "an output is right within this relative difference",
                       .python_only = true, .section = kCheck};
constexpr Option kOracleTimeout{
    .name = "oracle_timeout", .spellings = "--oracle-timeout", .metavar = "S",
    .kind = Kind::Number, .help = "seconds that ONNX Runtime may take for the model",
    .python_only = true, .section = kCheck};
constexpr Option kOracleMemory{.name = "oracle_memory", .spellings = "--oracle-memory",
                               .metavar = "SIZE", .kind = Kind::Size,
                               .help = "memory that ONNX Runtime may take, such as 8GB",
                               .python_only = true, .section = kCheck};
constexpr Option kPerNode{.name = "per_node", .spellings = "--per-node",
                          .help = "show every intermediate value", .python_only = true,
                          .section = kCheck};
constexpr Option kReport{
    .name = "report", .spellings = "--report", .metavar = "FILE", .kind = Kind::Path,
    .help = "write what was found to one HTML file that can be sent: the modules, each node's error, "
            "the source",
    .files = "html", .python_only = true, .section = kCheck};
constexpr Option kTarget{.name = "target", .metavar = "TARGET", .kind = Kind::Path,
                         .help = "x.py, x.pth, x.pt, x.pt2 or another .onnx (default: convert MODEL)",
                         .has_place = true, .takes_model = true};

constexpr Option kModule{
    .name = "module", .metavar = "MODULE:CLASS", .kind = Kind::Text,
    .help = "what makes the module without arguments, such as package.module:Class; the folder "
            "here is looked in too",
    .has_place = true, .required = true};
constexpr Option kWeights{.name = "output", .spellings = "-o --output", .metavar = "OUTPUT",
                          .kind = Kind::Path,
                          .help = "x.safetensors (default: CLASS.safetensors here)"};

// ---- Simplification ----

constexpr Option kOut{
    .name = "out", .spellings = "-o --output", .metavar = "OUT", .kind = Kind::Path,
    .help = "where to write, a file or a folder (default: MODEL-simple.onnx here)",
    .has_place = true, .takes_model = true};
constexpr Option kCheckN{.name = "check_n", .metavar = "N", .kind = Kind::Whole,
                         .help = "random inputs to check with", .fallback = "3",
                         .has_place = true, .python_only = true, .section = kCheck,
                         .most = 10000};
constexpr Option kDisable{.name = "disable", .spellings = "--disable", .metavar = "RULE",
                          .kind = Kind::Rule, .help = "do without a rule", .repeatable = true,
                          .section = kRules};
// Its value `all` stands for no value: onnxsim then only folds.
constexpr Option kSkipOptimization{
    .name = "skip_optimization", .spellings = "--skip-optimization", .metavar = "RULE",
    .kind = Kind::Rule,
    .help = "the same as --disable, as onnxsim has it; without a rule: only fold constants",
    .implied = "all", .repeatable = true, .section = kRules};
constexpr Option kOnly{.name = "only", .spellings = "--only", .metavar = "RULE",
                       .kind = Kind::Rule, .help = "use this rule and no other",
                       .repeatable = true, .section = kRules};
constexpr Option kWhyNot{.name = "why_not", .spellings = "--why-not", .metavar = "RULE",
                         .kind = Kind::Rule,
                         .help = "show where this rule left nodes alone, and why",
                         .repeatable = true, .section = kRules};
constexpr Option kListRules{.name = "list_rules", .spellings = "--list-rules",
                            .help = "print the rules and what they do", .section = kRules};
constexpr Option kStopAfter{.name = "stop_after", .spellings = "--stop-after", .metavar = "N",
                            .kind = Kind::Whole, .help = "stop after so many rewrites",
                            .section = kRules};
constexpr Option kNoLargeTensor{.name = "no_large_tensor", .spellings = "--no-large-tensor",
                                .metavar = "SIZE", .kind = Kind::Size,
                                .help = "make no constant above this size by folding",
                                .implied = "1KB", .section = kRules};
constexpr Option kOpset{.name = "opset", .spellings = "--opset", .metavar = "N",
                        .kind = Kind::Whole, .help = "bring the model to this opset, a newer one",
                        .most = 1000};
constexpr Option kExternalData{.name = "external_data", .spellings = "--external-data",
                               .also = "--save-as-external-data",
                               .help = "write the weights to OUT.data"};

constexpr Option kShell{.name = "shell", .metavar = "SHELL", .kind = Kind::Choice,
                        .help = "bash, zsh or fish", .choices = "bash zsh fish",
                        .has_place = true, .required = true};

// ---- Commands ----

constexpr const Option* kConvertOptions[] = {
    &kModelToConvert, &kMoreModels, &kOutput, &kJobs, &kForce,       &kInputShape,   &kDataRoot,
    &kDynamicBatch,   &kDynamic,
    &kDropUndefined,  &kNoSimplify, &kFuse,        &kAllowUnknown, &kClassName,
    &kCommentsOrigin, &kFlat, &kTpPlan, &kMaxShardSize, &kSimplifyPath, &kReport, &kJson, &kQuiet, &kVerbose, &kNoCheck,
    &kInput,          &kTestInputShape, &kSeed,    &kNodes,        &kAtol,
    &kRtol,           &kThreads,    &kOracleTimeout, &kOracleMemory};
constexpr const Option* kSimplifyOptions[] = {
    &kModelToSimplify, &kMoreModels, &kOut, &kCheckN, &kJobs,    &kForce,          &kInputShape,     &kDataRoot,
    &kDynamicBatch,    &kDynamic,
    &kDropUndefined,   &kOpset,   &kExternalData, &kJson, &kQuiet, &kVerbose, &kListRules,
    &kDisable,         &kSkipOptimization, &kOnly, &kWhyNot,     &kStopAfter,      &kNoLargeTensor,
    &kReport,         &kNoCheck, &kInput,   &kTestInputShape, &kSeed,      &kValues,         &kAtol,
    &kRtol,            &kThreads, &kOracleTimeout,  &kOracleMemory};
constexpr const Option* kVerifyOptions[] = {
    &kModel, &kTarget, &kModelsToVerify, &kJobs, &kDataRoot, &kDynamicBatch,  &kDynamic,    &kDropUndefined, &kNoSimplify, &kFuse,
    &kAllowUnknown, &kReport, &kJson, &kQuiet, &kVerbose, &kInput,         &kVerifyShape, &kSeed,
    &kNodes,        &kPerNode,        &kAtol,     &kRtol,          &kThreads,    &kOracleTimeout,
    &kOracleMemory};
constexpr const Option* kTransferOptions[] = {
    &kModel, &kModule,      &kWeights, &kForce,         &kDataRoot,    &kJson, &kQuiet, &kVerbose,
    &kInput, &kVerifyShape, &kSeed,    &kOracleTimeout, &kOracleMemory};
constexpr const Option* kInspectOptions[] = {&kModel, &kModelsToInspect, &kListNodes, &kInputShape, &kDataRoot, &kDropUndefined,
                                             &kNoSimplify, &kAllowUnknown, &kJson, &kQuiet, &kVerbose};
constexpr const Option* kDiffOptions[] = {&kModel, &kOther, &kAll, &kDataRoot, &kDropUndefined, &kJson, &kQuiet, &kVerbose};
constexpr const Option* kCompletionOptions[] = {&kShell};

constexpr Example kConvertExamples[] = {
    {"model.onnx", "model.py and model.safetensors here, checked"},
    {"model.onnx net.py", "the same, under another name"},
    {"model.onnx net.pth", "weights as a state_dict, source in net.py"},
    {"model.onnx net.pt", "one TorchScript file, for torch.jit.load"},
    {"model.onnx net.pt2", "one file for torch.export.load"},
    {"model.onnx --input_shape input:1,3,320,320", "for inputs of this shape only"},
    {"model.onnx --input data.npz", "checked with these inputs", true},
    {"models/*.onnx -o out/ --jobs 4", "many, each in a process of its own", true}};
constexpr Example kSimplifyExamples[] = {
    {"simplify model.onnx small.onnx", "a smaller ONNX file that does the same"},
    {"simplify model.onnx small.onnx --opset 21", "the same, of a newer opset"},
    {"simplify model.onnx small.onnx --why-not fuse-batch-norm",
     "says where a rule was of no use"}};
constexpr Example kVerifyExamples[] = {
    {"verify model.onnx net.py", "compare; names the first node that differs"},
    {"verify model.onnx small.onnx", "two ONNX files"},
    {"verify model.onnx --atol 1e-3", "with a bar of one's own"}};
constexpr Example kTransferExamples[] = {
    {"transfer model.onnx nets.resnet:ResNet", "ResNet.safetensors, for load_state_dict"}};
constexpr Example kInspectExamples[] = {
    {"inspect model.onnx", "what is in it, and what would not convert"},
    {"inspect a.onnx b.onnx", "two beside each other"},
    {"inspect model.onnx --input_shape ids:1,128", "numbers where sizes are open"}};
constexpr Example kDiffExamples[] = {
    {"diff model.onnx small.onnx", "what a simplifier or an exporter changed"}};
constexpr Example kCompletionExamples[] = {
    {"completion bash > ~/.local/share/bash-completion/completions/onnx2nn", "for bash"},
    {"completion zsh > ~/.onnx2nn.zsh", "for zsh, with: source ~/.onnx2nn.zsh in .zshrc"},
    {"completion fish > ~/.config/fish/completions/onnx2nn.fish", "for fish"}};

constexpr Command kCommands[] = {
    {"convert", "write PyTorch source and weights (what a bare model does)", kConvertOptions,
     kConvertExamples},
    {"simplify", "write a smaller ONNX model that does the same", kSimplifyOptions,
     kSimplifyExamples},
    {"verify", "compare a conversion with ONNX Runtime", kVerifyOptions, kVerifyExamples, true},
    {"transfer", "write the weights for a module of your own", kTransferOptions,
     kTransferExamples, true},
    {"inspect", "show what is in a model and what would not convert", kInspectOptions,
     kInspectExamples},
    {"diff", "show what differs between two models", kDiffOptions, kDiffExamples},
    {"completion", "print a completion script for a shell", kCompletionOptions,
     kCompletionExamples}};

}  // namespace

std::span<const Command> commands() { return kCommands; }

const Command* find_command(std::string_view name) {
  const auto* found = std::find_if(std::begin(kCommands), std::end(kCommands),
                                   [&](const Command& c) { return c.name == name; });
  return found == std::end(kCommands) ? nullptr : found;
}

}  // namespace onnx2nn::cli
