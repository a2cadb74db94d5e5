// Log lines to stderr, as text or JSON, with key=value fields. One Logger per process, handed to
// whoever logs; all methods are thread-safe.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace egw::runtime {

enum class LogLevel : std::uint8_t {
  kDebug = 0,
  kInfo = 1,
  kWarn = 2,
  kError = 3
};  // = egw_log_level
enum class LogFormat : std::uint8_t { kText, kJson };

// "debug", "info", "warn" (or "warning"), "error".
[[nodiscard]] std::optional<LogLevel> parse_log_level(std::string_view text);
[[nodiscard]] std::string_view to_string(LogLevel level);
// "text", "json".
[[nodiscard]] std::optional<LogFormat> parse_log_format(std::string_view text);

using LogFields = std::initializer_list<std::pair<std::string_view, std::string_view>>;

class Logger {
 public:
  Logger(LogFormat format, LogLevel level);
  ~Logger();
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;

  void log(LogLevel level, std::string_view message, LogFields fields = {});
  void debug(std::string_view message, LogFields fields = {}) {
    log(LogLevel::kDebug, message, fields);
  }
  void info(std::string_view message, LogFields fields = {}) {
    log(LogLevel::kInfo, message, fields);
  }
  void warn(std::string_view message, LogFields fields = {}) {
    log(LogLevel::kWarn, message, fields);
  }
  void error(std::string_view message, LogFields fields = {}) {
    log(LogLevel::kError, message, fields);
  }
  void set_level(LogLevel level);
  [[nodiscard]] LogLevel level() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace egw::runtime
