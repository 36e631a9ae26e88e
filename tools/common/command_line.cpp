#include "tools/common/command_line.h"

#include <CLI/CLI.hpp>

#include "kernels/common/check.h"
#include "kernels/common/threads.h"

namespace moba {

namespace {

// CLI11's own bounds print the largest double in full.
CLI::Validator bound(bool (*good)(double), const char* rule, const char* name) {
  const auto check = [=](std::string& text) {
    double value = 0;
    if (!CLI::detail::lexical_cast(text, value)) return fmt::format("must be a number, got {}", text);
    return good(value) ? std::string() : fmt::format("{}, got {}", rule, text);
  };
  return CLI::Validator(check, name);
}

}  // namespace

CommandOption CommandOption::required() const { return CommandOption(option_->required()); }
CommandOption CommandOption::show_default() const { return CommandOption(option_->capture_default_str()); }
CommandOption CommandOption::hidden() const { return CommandOption(option_->group("")); }

CommandOption CommandOption::one_of(std::initializer_list<const char*> words) const {
  return CommandOption(option_->check(CLI::IsMember(std::vector<std::string>(words.begin(), words.end()))));
}

CommandOption CommandOption::positive() const {
  return CommandOption(option_->check(bound([](double x) { return x > 0; }, "must be above 0", "POSITIVE")));
}
CommandOption CommandOption::non_negative() const {
  return CommandOption(option_->check(bound([](double x) { return x >= 0; }, "must be 0 or more", "NONNEGATIVE")));
}
CommandOption CommandOption::range(int64_t low, int64_t high) const { return CommandOption(option_->check(CLI::Range(low, high))); }
CommandOption CommandOption::share() const { return CommandOption(option_->check(CLI::Range(0.0, 1.0))); }
CommandOption CommandOption::existing_file() const { return CommandOption(option_->check(CLI::ExistingFile)); }
CommandOption CommandOption::excludes(CommandOption other) const { return CommandOption(option_->excludes(other.option_)); }
CommandOption CommandOption::needs(CommandOption other) const { return CommandOption(option_->needs(other.option_)); }

CommandOption Command::add_option(const std::string& name, std::string& value, const std::string& help) const {
  return CommandOption(app_->add_option(name, value, help));
}
CommandOption Command::add_option(const std::string& name, std::optional<std::string>& value, const std::string& help) const {
  return CommandOption(app_->add_option(name, value, help));
}
CommandOption Command::add_option(const std::string& name, std::vector<std::string>& values, const std::string& help) const {
  return CommandOption(app_->add_option(name, values, help));
}
CommandOption Command::add_option(const std::string& name, int& value, const std::string& help) const {
  return CommandOption(app_->add_option(name, value, help));
}
CommandOption Command::add_option(const std::string& name, int64_t& value, const std::string& help) const {
  return CommandOption(app_->add_option(name, value, help));
}
CommandOption Command::add_option(const std::string& name, uint64_t& value, const std::string& help) const {
  return CommandOption(app_->add_option(name, value, help));
}
CommandOption Command::add_option(const std::string& name, double& value, const std::string& help) const {
  return CommandOption(app_->add_option(name, value, help));
}
CommandOption Command::add_flag(const std::string& name, bool& value, const std::string& help) const {
  return CommandOption(app_->add_flag(name, value, help));
}
CommandOption Command::add_flag(const std::string& name, int64_t& value, int64_t alone, const std::string& help) const {
  return CommandOption(app_->add_flag(fmt::format("{}{{{}}}", name, alone), value, help)).positive();
}
CommandOption Command::add_threads() const {
  return CommandOption(app_->add_option_function<int>(
      "--threads", [](int n) { set_num_threads(n); }, "Compute threads (default: all cores)"));
}

Command Command::add_subcommand(const std::string& name, const std::string& help) const {
  return Command(app_->add_subcommand(name, help));
}

const Command& Command::require_subcommand() const {
  app_->require_subcommand(1);
  return *this;
}
const Command& Command::fallthrough() const {
  app_->fallthrough();
  return *this;
}
const Command& Command::footer(const std::string& text) const {
  app_->footer(text);
  return *this;
}
const Command& Command::callback(std::function<void()> run) const {
  app_->callback(std::move(run));
  return *this;
}

CommandLine::CommandLine(const std::string& about, const std::string& name)
    : Command(nullptr), owned_(std::make_unique<CLI::App>(about, name)) {
  app_ = owned_.get();
}
CommandLine::~CommandLine() = default;

std::optional<int> CommandLine::parse(int argc, char** argv) const {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app_->exit(error) == 0 ? 0 : static_cast<int>(ExitCode::usage);
  }
  return {};
}

}  // namespace moba
