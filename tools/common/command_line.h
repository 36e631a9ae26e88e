// Arguments of a program. The only user of CLI11, whose header takes longer to compile than most programs.
#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace moba {

// A handle; every member returns the option for further calls.
class CommandOption {
 public:
  explicit CommandOption(CLI::Option* option) : option_(option) {}
  CommandOption required() const;
  CommandOption show_default() const;  // the value the variable has now
  CommandOption hidden() const;
  CommandOption one_of(std::initializer_list<const char*> words) const;
  CommandOption positive() const;
  CommandOption non_negative() const;
  CommandOption range(int64_t low, int64_t high) const;
  CommandOption share() const;  // from 0 to 1
  CommandOption existing_file() const;
  CommandOption excludes(CommandOption other) const;
  CommandOption needs(CommandOption other) const;

 private:
  CLI::Option* option_;
};

// A program or one of its subcommands; a handle. Names: "--threads", or "recipe" for what stands without a name.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}
  CommandOption add_option(const std::string& name, std::string& value, const std::string& help) const;
  CommandOption add_option(const std::string& name, std::optional<std::string>& value, const std::string& help) const;
  CommandOption add_option(const std::string& name, std::vector<std::string>& values, const std::string& help) const;
  CommandOption add_option(const std::string& name, int& value, const std::string& help) const;
  CommandOption add_option(const std::string& name, int64_t& value, const std::string& help) const;
  CommandOption add_option(const std::string& name, uint64_t& value, const std::string& help) const;
  CommandOption add_option(const std::string& name, double& value, const std::string& help) const;
  CommandOption add_flag(const std::string& name, bool& value, const std::string& help) const;
  // The value `alone` without =NUMBER; 1 or more.
  CommandOption add_flag(const std::string& name, int64_t& value, int64_t alone, const std::string& help) const;
  // --threads, which takes effect as soon as it is read.
  CommandOption add_threads() const;
  Command add_subcommand(const std::string& name, const std::string& help) const;
  const Command& require_subcommand() const;  // exactly one
  const Command& fallthrough() const;         // options of the program may stand after the subcommand
  const Command& footer(const std::string& text) const;
  const Command& callback(std::function<void()> run) const;  // called by parse() when the subcommand was given

 protected:
  CLI::App* app_;
};

class CommandLine : public Command {
 public:
  CommandLine(const std::string& about, const std::string& name);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  // Fills the variables and runs callbacks. A number if the program is to end with it: 0 after --help, ExitCode::usage after an
  // error; both have been printed.
  std::optional<int> parse(int argc, char** argv) const;

 private:
  std::unique_ptr<CLI::App> owned_;
};

}  // namespace moba
