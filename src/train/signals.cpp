#include "src/train/signals.h"

#include <csignal>
#include <initializer_list>

namespace moba {
namespace {

volatile std::sig_atomic_t stop_flag = 0;
volatile std::sig_atomic_t save_flag = 0;

void on_stop(int) { stop_flag = 1; }
void on_save(int) { save_flag = 1; }

void install(int signal, void (*handler)(int), int flags) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, nullptr);
}

}  // namespace

SignalWatch::SignalWatch() {
  stop_flag = 0;
  save_flag = 0;
  install(SIGTERM, on_stop, SA_RESTART);
  install(SIGINT, on_stop, static_cast<int>(SA_RESTART | SA_RESETHAND));
  install(SIGUSR1, on_save, SA_RESTART);
}

SignalWatch::~SignalWatch() {
  for (int signal : {SIGTERM, SIGINT}) install(signal, SIG_DFL, 0);
  install(SIGUSR1, SIG_IGN, 0);  // late requests must not kill a process that is finishing
}

bool SignalWatch::stop_requested() { return stop_flag != 0; }

bool SignalWatch::take_save_request() {
  const bool requested = save_flag != 0;
  save_flag = 0;
  return requested;
}

}  // namespace moba
