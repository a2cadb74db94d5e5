// A forked child in which a plugin's code is run for the first time, so that one that crashes,
// hangs or exits does so there. Called by trial.cpp and probe_trial.cpp.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace egw::host {

struct ChildEnd {
  std::string stream;         // what it sent
  bool in_time = true;        // it ended its stream before the patience was over
  std::optional<int> status;  // as of waitpid(2); nullopt: it had to be killed
  std::string trouble;        // why there was no child; empty: there was
};

// Runs `body` in a child and waits at most `patience`; blocks. out: for send_to_parent. What it
// prints is discarded. complete: the stream holds all that is awaited, so its end is not.
[[nodiscard]] ChildEnd in_child(const std::function<void(int out)>& body,
                                std::chrono::milliseconds patience,
                                const std::function<bool(const std::string& stream)>& complete);
// In the child; ends it when nobody listens.
void send_to_parent(int out, std::string_view bytes);

// "crashed with signal 11 (SIGSEGV) <doing>", "did not come back within 5 s <doing>", ...
[[nodiscard]] std::string end_text(const ChildEnd& end, std::chrono::milliseconds patience,
                                   std::string_view doing);

}  // namespace egw::host
