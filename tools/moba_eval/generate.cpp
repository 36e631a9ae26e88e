// moba-eval generate: prints a prompt and how the model goes on with it.
#include "src/layers/generate.h"

#include <algorithm>
#include <cstdio>

#include "src/interop/hashed_file.h"
#include "tools/moba_eval/commands.h"

namespace moba::eval {

void run_generate(const ModelOptions& model_options, const GenerateCommand& options) {
  const LoadedModel model = open_model(model_options);
  const auto tokenizer = model.tokenizer();
  const std::string prompt = options.prompt_file.empty() ? options.prompt : read_whole_file(options.prompt_file);
  std::vector<int32_t> ids;
  if (tokenizer->bos_token_id() >= 0) ids.push_back(tokenizer->bos_token_id());
  tokenizer->encode(prompt, ids);
  MOBA_CHECK(!ids.empty(), "the prompt is empty; give some text to go on with by --prompt or --prompt-file");

  GenerateOptions generation;
  generation.prefill = model.layers;
  generation.moba_decode = options.decode == "moba";
  generation.rope_scaling = model.description.model.rope_scaling;
  generation.max_new_tokens = options.max_new_tokens;
  generation.temperature = options.temperature;
  generation.top_p = options.top_p;
  generation.seed = options.seed;
  generation.eos_token_id = tokenizer->eos_token_id();
  generation.vocabulary = std::min<int64_t>(tokenizer->vocab_size(), model.description.model.vocab_size);
  for (const int32_t id : unused_ids(*tokenizer))
    if (id < generation.vocabulary) generation.never.push_back(id);
  const auto print = [](const std::string& bytes) {
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    std::fflush(stdout);
  };
  generation.on_token = [&](int32_t token) {
    if (token != generation.eos_token_id) print(tokenizer->decode({&token, 1}));
  };
  print(prompt);
  try {
    generate(*model.transformer, ids, generation);
  } catch (const OutOfMemory& error) {  // of the cache, which has room for every token from the start
    throw Error(
        fmt::format("{}; lower --max-new-tokens {} or shorten the prompt of {} tokens", error.what(), options.max_new_tokens, ids.size()));
  }
  print("\n");
}

}  // namespace moba::eval
