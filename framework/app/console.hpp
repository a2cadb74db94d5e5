// Where verbs write: results to stdout, words for people to stderr.
#pragma once

#include <string>
#include <string_view>

namespace egw::app {

class Console {
 public:
  Console() = default;
  Console(int out_fd, int err_fd) : out_fd_(out_fd), err_fd_(err_fd) {}
  ~Console() { (void)flush(); }
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // Results; collected until flush() or until there are 64 KiB of them.
  void out(std::string_view text);
  // One line for people (the newline is added); results before it are flushed first.
  void err(std::string_view line);
  void error(std::string_view message);    // "Error: ..."
  void warning(std::string_view message);  // "Warning: ..."
  // false: stdout cannot be written any more (said on stderr unless its reader has gone away).
  bool flush();
  [[nodiscard]] bool broken() const { return broken_; }
  // The same, and not because its reader has gone away.
  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] int out_fd() const { return out_fd_; }

 private:
  int out_fd_ = 1, err_fd_ = 2;
  std::string buffer_;
  bool broken_ = false, failed_ = false;
};

}  // namespace egw::app
