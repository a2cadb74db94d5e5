// The choice of a datapath (auto_datapath.hpp).
#include "egw/runtime/auto_datapath.hpp"

#include <algorithm>
#include <utility>

namespace egw::runtime {
namespace asio = boost::asio;

namespace {

Error not_chosen() { return {Errc::kUnavailable, "datapath auto", "none has been chosen yet", 0}; }

std::string listed(const std::map<std::string, std::string>& reasons) {
  std::string out;
  for (const std::string_view name : kAutomaticOrder) {
    const auto at = reasons.find(std::string(name));
    if (at == reasons.end()) continue;
    out += (out.empty() ? "" : "; ") + at->first + ": " + at->second;
  }
  return out;
}

// What forbids to run, as one line; empty: nothing.
std::string refusal(const Result<std::vector<host::ProbeFinding>>& findings) {
  if (!findings) return findings.error().to_string();
  std::string out;
  for (const auto& finding : *findings) {
    if (finding.ok || finding.advisory) continue;
    out += (out.empty() ? "" : ", ") + finding.code + ": " + finding.message;
  }
  return out;
}

}  // namespace

Candidates find_candidates(const host::PluginHost& plugins,
                           const std::optional<DatapathRecord>& record, const std::string& boot) {
  Candidates out;
  std::vector<std::string> order(kAutomaticOrder.begin(), kAutomaticOrder.end());
  if (record && !boot.empty() && record->boot == boot) {
    const auto last = std::find(order.begin(), order.end(), record->now.choice.name);
    if (last != order.end()) std::rotate(order.begin(), last, last + 1);
  }
  for (std::string& name : order) {
    const auto info = plugins.inspect(host::PluginKind::kDatapath, name);
    if (!info) {
      out.others[name] =
          info.error().code == Errc::kNotFound ? "is not installed" : info.error().to_string();
    } else if (!info->problem.empty()) {
      out.others[name] = info->file.string() + " " + info->problem;
    } else {
      out.names.push_back(std::move(name));
    }
  }
  return out;
}

Result<std::unique_ptr<AutoDatapath>> AutoDatapath::open(
    host::PluginHost& plugins, const RuntimeConfig& config,
    const std::optional<DatapathRecord>& record, Logger& log) {
  std::unique_ptr<AutoDatapath> out(new AutoDatapath(log));
  const std::string boot = this_boot();
  Candidates found = find_candidates(plugins, record, boot);
  out->others_ = std::move(found.others);
  if (record && record->boot == boot) out->predecessor_ = record->now.choice.name;
  for (const std::string& name : found.names) {
    PluginChoice choice{name};
    const auto own = config.datapath.config.find(name);
    if (own != config.datapath.config.end()) choice.config = *own;
    auto opened = plugins.open_datapath(name, choice.config, datapath_dir(config.state_dir, name),
                                        config.state_dir);
    // A fault of the configuration is nobody's reason to run with something else.
    if (!opened && opened.error().code == Errc::kInvalid) return tl::unexpected(opened.error());
    if (opened) {
      out->candidates_.push_back({std::move(choice), std::move(*opened)});
    } else {
      out->others_[name] = "cannot be opened: " + opened.error().to_string();
    }
  }
  if (!out->candidates_.empty()) return out;
  const bool installed = !found.names.empty();
  return fail(installed ? Errc::kUnavailable : Errc::kInvalid, "plugins.datapath.name",
              "auto finds no usable datapath in " + config.plugin_dir.string() + ": " +
                  listed(out->others_) +
                  (installed ? "" : ": install one, or name another folder with --plugin-dir"));
}

std::optional<PluginChoice> AutoDatapath::chosen() const {
  return datapath_ ? std::optional<PluginChoice>(choice_) : std::nullopt;
}

void AutoDatapath::choose(std::size_t index) {
  choice_ = candidates_[index].choice;
  datapath_ = std::move(candidates_[index].datapath);
  for (std::size_t i = index + 1; i < candidates_.size(); ++i) {
    others_[candidates_[i].choice.name] = choice_.name == predecessor_
                                              ? choice_.name + " has programmed this node already"
                                              : "comes after " + choice_.name;
  }
  others_.erase(choice_.name);
  candidates_.clear();  // closes the others, which changes nothing
  datapath_->on_drift(on_drift_);
  log_.info("datapath chosen automatically",
            {{"datapath", choice_.name}, {"others", listed(others_)}});
}

asio::awaitable<Result<std::vector<host::ProbeFinding>>> AutoDatapath::probe(
    model::NodeConfig node) {
  if (datapath_) co_return co_await datapath_->probe(std::move(node));
  std::vector<host::ProbeFinding> refused;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    model::NodeConfig its_node = node;
    auto findings = co_await candidates_[i].datapath->probe(std::move(its_node));
    std::string why = refusal(findings);
    if (why.empty()) {
      choose(i);
      co_return findings;
    }
    others_[candidates_[i].choice.name] = std::move(why);
  }
  for (const std::string_view name : kAutomaticOrder) {
    const auto at = others_.find(std::string(name));
    if (at == others_.end()) continue;
    host::ProbeFinding finding;
    finding.ok = false;
    finding.code = at->first;
    finding.message = at->second;
    refused.push_back(std::move(finding));
  }
  co_return refused;
}

asio::awaitable<Result<void>> AutoDatapath::health() {
  if (datapath_) co_return co_await datapath_->health();
  for (const Candidate& candidate : candidates_) {
    if (candidate.choice.name == predecessor_) co_return co_await candidate.datapath->health();
  }
  co_return fail(Errc::kUnavailable, "datapath auto",
                 "no datapath has programmed this node since it was booted");
}

asio::awaitable<Result<host::ApplyOutcome>> AutoDatapath::apply(model::Change change) {
  if (!datapath_) co_return tl::unexpected(not_chosen());
  co_return co_await datapath_->apply(std::move(change));
}
asio::awaitable<Result<std::vector<host::SysctlNeed>>> AutoDatapath::sysctls() {
  if (!datapath_) co_return tl::unexpected(not_chosen());
  co_return co_await datapath_->sysctls();
}
asio::awaitable<Result<nlohmann::json>> AutoDatapath::observe() {
  if (!datapath_) co_return tl::unexpected(not_chosen());
  co_return co_await datapath_->observe();
}
asio::awaitable<Result<std::vector<host::CounterValue>>> AutoDatapath::counters() {
  if (!datapath_) co_return tl::unexpected(not_chosen());
  co_return co_await datapath_->counters();
}
asio::awaitable<Result<void>> AutoDatapath::forget(model::Address eip) {
  if (!datapath_) co_return tl::unexpected(not_chosen());
  co_return co_await datapath_->forget(eip);
}
asio::awaitable<Result<void>> AutoDatapath::purge() {
  if (!datapath_) co_return tl::unexpected(not_chosen());
  co_return co_await datapath_->purge();
}
asio::awaitable<Result<void>> AutoDatapath::hand_over(model::NodeConfig node) {
  if (!datapath_) co_return tl::unexpected(not_chosen());
  co_return co_await datapath_->hand_over(std::move(node));
}

std::string AutoDatapath::layout() const { return datapath_ ? datapath_->layout() : std::string(); }
bool AutoDatapath::hands_over_to(const std::string& layout) const {
  return datapath_ && datapath_->hands_over_to(layout);
}
void AutoDatapath::on_drift(std::function<void(std::string)> callback) {
  on_drift_ = std::move(callback);
  if (datapath_) datapath_->on_drift(on_drift_);
}
unsigned AutoDatapath::missed_deadlines() const {
  if (datapath_) return datapath_->missed_deadlines();
  unsigned most = 0;
  for (const Candidate& c : candidates_) most = std::max(most, c.datapath->missed_deadlines());
  return most;
}

}  // namespace egw::runtime
