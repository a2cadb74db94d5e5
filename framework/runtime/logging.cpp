// Logger on spdlog: one sink, stderr. The line is formatted here, so that text and JSON carry the
// same fields.
#include "egw/runtime/logging.hpp"

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "egw/model/meta.hpp"

namespace egw::runtime {
namespace {

spdlog::level::level_enum native(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      break;
  }
  return spdlog::level::err;
}

std::string now_text() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return model::format_micro_time(
      std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

// A value of one word is written as it is, any other quoted, and a line stays one line.
void append_value(std::string& out, std::string_view value) {
  if (!value.empty() && value.find_first_of(" \t\r\n\"=") == std::string_view::npos) {
    out += value;
    return;
  }
  out += nlohmann::json(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string text_line(LogLevel level, std::string_view message, const LogFields& fields) {
  std::string line = now_text();
  line += ' ';
  for (const char c : to_string(level)) line += static_cast<char>(c - 'a' + 'A');
  line += ' ';
  for (const char c : message) line += (c == '\n' || c == '\r') ? ' ' : c;
  for (const auto& [key, value] : fields) {
    line += ' ';
    line += key;
    line += '=';
    append_value(line, value);
  }
  return line;
}

std::string json_line(LogLevel level, std::string_view message, const LogFields& fields) {
  nlohmann::ordered_json line = {
      {"time", now_text()}, {"level", to_string(level)}, {"msg", message}};
  for (const auto& [key, value] : fields) line[std::string(key)] = value;
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::optional<LogLevel> parse_log_level(std::string_view text) {
  if (text == "debug") return LogLevel::kDebug;
  if (text == "info") return LogLevel::kInfo;
  if (text == "warn" || text == "warning") return LogLevel::kWarn;
  if (text == "error") return LogLevel::kError;
  return std::nullopt;
}

std::string_view to_string(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarn:
      return "warn";
    case LogLevel::kError:
      break;
  }
  return "error";
}

std::optional<LogFormat> parse_log_format(std::string_view text) {
  if (text == "text") return LogFormat::kText;
  if (text == "json") return LogFormat::kJson;
  return std::nullopt;
}

struct Logger::Impl {
  LogFormat format;
  spdlog::logger logger;
};

Logger::Logger(LogFormat format, LogLevel level)
    : impl_(new Impl{format,
                     spdlog::logger("egw", std::make_shared<spdlog::sinks::stderr_sink_mt>())}) {
  impl_->logger.set_pattern("%v");
  impl_->logger.flush_on(spdlog::level::trace);
  set_level(level);
}

Logger::~Logger() = default;

void Logger::log(LogLevel level, std::string_view message, LogFields fields) {
  const auto wanted = native(level);
  if (!impl_->logger.should_log(wanted)) return;
  const std::string line = impl_->format == LogFormat::kJson ? json_line(level, message, fields)
                                                             : text_line(level, message, fields);
  impl_->logger.log(wanted, spdlog::string_view_t(line));
}

void Logger::set_level(LogLevel level) { impl_->logger.set_level(native(level)); }

LogLevel Logger::level() const {
  switch (impl_->logger.level()) {
    case spdlog::level::trace:
    case spdlog::level::debug:
      return LogLevel::kDebug;
    case spdlog::level::info:
      return LogLevel::kInfo;
    case spdlog::level::warn:
      return LogLevel::kWarn;
    default:
      return LogLevel::kError;
  }
}

}  // namespace egw::runtime
