// moba-eval: loss, generation, dumps for checks, and export of a checkpoint.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "kernels/common/check.h"
#include "kernels/common/threads.h"
#include "tools/moba_eval/commands.h"

namespace moba::eval {
namespace {

void add_model_options(CLI::App& command, ModelOptions& o) {
  command.add_option("checkpoint", o.checkpoint, "A run's folder (its newest checkpoint), a step folder, or a Hugging Face directory")
      ->required();
  command.add_option("--attn", o.attention, "Attention of every layer: full, moba, moba_naive or window");
  command.add_option("--hybrid-layers", o.hybrid_layers, "These layers full, all others MoBA: lastN, firstN, none, all or 0,3,7");
  command.add_option("--precision", o.precision, "Arithmetic of the pass: fp32 or bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
}

int run(int argc, char** argv) {
  CLI::App app{"Loss, text, dumps and export of a checkpoint", "moba-eval"};
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option_function<int>(
      "--threads", [](int n) { set_num_threads(n); }, "Compute threads (default: all cores)");
  ModelOptions model;

  LossOptions loss;
  auto* loss_command = app.add_subcommand("loss", "Loss over a token dataset");
  add_model_options(*loss_command, model);
  loss_command->add_option("--data", loss.data, "Token dataset, X.h5")->required();
  loss_command->add_option("--sequence-length", loss.sequence_length, "Tokens of a sequence (default: max_position_embeddings)")
      ->check(CLI::PositiveNumber);
  loss_command
      ->add_option(
          "--trailing", loss.trailing,
          "Also the loss over the last M tokens of full windows of documents; sft: over the last M counted targets of each example")
      ->check(CLI::NonNegativeNumber);
  loss_command
      ->add_option("--bins", loss.bins,
                   "Also the loss by position, in n parts of full windows of documents; sft: by position within each example")
      ->check(CLI::NonNegativeNumber);
  loss_command->add_option("--max-tokens", loss.max_tokens, "Stop after so many tokens (default: all)")->check(CLI::NonNegativeNumber);
  loss_command
      ->add_option("--task", loss.task,
                   "How the data is packed: pretrain cuts running text anywhere; sft puts whole examples side by side, each attending to "
                   "itself only, and drops those longer than a sequence (default: sft if the data has a loss mask)")
      ->check(CLI::IsMember({"pretrain", "sft"}));
  loss_command->add_flag("--document-mask", loss.document_mask, "Attention stays inside documents");
  auto* json_flag = loss_command->add_flag("--json", loss.json, "One JSON object");
  loss_command->add_flag("--routing", loss.routing, "With --json: which block reads which, by layer and head")->needs(json_flag);
  loss_command->callback([&] { run_loss(model, loss); });

  GenerateCommand generation;
  auto* generate_command = app.add_subcommand("generate", "Continue a prompt");
  add_model_options(*generate_command, model);
  auto* prompt = generate_command->add_option("--prompt", generation.prompt, "Text to go on with");
  generate_command->add_option("--prompt-file", generation.prompt_file, "File with that text")->check(CLI::ExistingFile)->excludes(prompt);
  generate_command->add_option("--max-new-tokens", generation.max_new_tokens, "Tokens to add at most")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  generate_command->add_option("--temperature", generation.temperature, "0: always the most likely token")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  generate_command->add_option("--top-p", generation.top_p, "Draw from the most likely tokens of this total probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  generate_command->add_option("--seed", generation.seed, "Same seed, same text")->capture_default_str();
  generate_command->add_option("--decode", generation.decode, "MoBA layers while decoding: full cache or moba")
      ->check(CLI::IsMember({"full", "moba"}))
      ->capture_default_str();
  generate_command->callback([&] { run_generate(model, generation); });

  DumpOptions dump;
  auto* dump_command = app.add_subcommand("dump", "One pass laid open in HDF5, for checks from Python");
  add_model_options(*dump_command, model);
  dump_command->add_option("--tokens", dump.tokens, "Token dataset, X.h5; its first tokens are used")->required();
  dump_command->add_option("--output", dump.output, "File to write, OUT.h5")->required();
  dump_command
      ->add_option("--sequence-length", dump.sequence_length, "Tokens of a sequence (default: max_position_embeddings, at most the file)")
      ->check(CLI::PositiveNumber);
  dump_command->add_option("--sequences", dump.sequences, "Sequences side by side")->check(CLI::PositiveNumber)->capture_default_str();
  dump_command->add_flag("--document-mask", dump.document_mask, "Attention stays inside documents");
  dump_command->add_flag("--selected", dump.selected, "Blocks that each query of a MoBA layer chose");
  dump_command->add_flag("--gradients", dump.gradients, "Gradient of the loss by every parameter");
  dump_command->callback([&] { run_dump(model, dump); });

  ExportOptions exporting;
  auto* export_command = app.add_subcommand("export", "Write a Hugging Face directory");
  add_model_options(*export_command, model);
  export_command->add_option("output", exporting.output, "Folder to write")->required();
  export_command->add_option("--dtype", exporting.dtype, "bf16 or f32")->check(CLI::IsMember({"bf16", "f32"}))->capture_default_str();
  export_command->callback([&] { run_export(model, exporting); });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(ExitCode::usage);
  }
  return 0;
}

}  // namespace
}  // namespace moba::eval

int main(int argc, char** argv) {
  try {
    return moba::eval::run(argc, argv);
  } catch (const moba::Error& error) {
    fmt::print(stderr, "moba-eval: {}\n", error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    fmt::print(stderr, "moba-eval: {}\n", error.what());
    return static_cast<int>(moba::ExitCode::io);
  }
}
