// Reads what the kernel says of its connection table (conntrack_table.hpp).
#include "egw/runtime/conntrack_table.hpp"

#include <array>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace egw::runtime {
namespace {

// Columns of /proc/net/stat/nf_conntrack: connections for which no tuple was free (all ports of an
// address taken), packets dropped for that or because the table is full, entries that had to make
// room for others.
constexpr std::array<std::string_view, 3> kReasons{"insert_failed", "drop", "early_drop"};

prometheus::MetricFamily family(const char* name, const char* help, prometheus::MetricType type) {
  prometheus::MetricFamily out;
  out.name = name;
  out.help = help;
  out.type = type;
  return out;
}

void add_gauge(const std::filesystem::path& file, const char* name, const char* help,
               std::vector<prometheus::MetricFamily>& out) {
  std::ifstream in(file);
  double value = 0;
  if (!(in >> value)) return;
  out.push_back(family(name, help, prometheus::MetricType::Gauge));
  out.back().metric.emplace_back().gauge.value = value;
}

// A line of names, then one of hexadecimal numbers for each CPU. The order of the columns differs
// between kernels.
std::map<std::string, std::uint64_t> read_statistics(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  std::istringstream names(line);
  const std::vector<std::string> columns{std::istream_iterator<std::string>(names), {}};
  std::map<std::string, std::uint64_t> sums;
  while (std::getline(in, line)) {
    std::istringstream numbers(line);
    std::uint64_t value = 0;
    for (const std::string& column : columns) {
      if (numbers >> std::hex >> value) sums[column] += value;
    }
  }
  return sums;
}

}  // namespace

std::vector<prometheus::MetricFamily> conntrack_families(const std::filesystem::path& proc) {
  std::vector<prometheus::MetricFamily> out;
  const auto settings = proc / "sys/net/netfilter";
  add_gauge(settings / "nf_conntrack_count", "egw_conntrack_entries",
            "Connections that the kernel tracks on this node.", out);
  add_gauge(settings / "nf_conntrack_max", "egw_conntrack_limit",
            "How many it tracks at most; then new ones are dropped.", out);
  const auto sums = read_statistics(proc / "net/stat/nf_conntrack");
  auto failures = family("egw_conntrack_failures_total",
                         "What the kernel's connection table refused or gave up, by reason.",
                         prometheus::MetricType::Counter);
  for (const std::string_view reason : kReasons) {
    const auto sum = sums.find(std::string(reason));
    if (sum == sums.end()) continue;
    auto& metric = failures.metric.emplace_back();
    auto& label = metric.label.emplace_back();
    label.name = "reason";
    label.value = reason;
    metric.counter.value = static_cast<double>(sum->second);
  }
  if (!failures.metric.empty()) out.push_back(std::move(failures));
  return out;
}

}  // namespace egw::runtime
