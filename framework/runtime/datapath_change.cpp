// From one datapath to another (datapath_change.hpp).
#include "egw/runtime/datapath_change.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

namespace egw::runtime {
namespace asio = boost::asio;

namespace {

std::string milliseconds_since(std::chrono::steady_clock::time_point start) {
  const auto took = std::chrono::steady_clock::now() - start;
  return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(took).count());
}

// Those that a start finds: what is on record, without the one that is in use now.
std::vector<ProgrammedDatapath> former_of(std::optional<DatapathRecord> recorded,
                                          const std::string& now) {
  std::vector<ProgrammedDatapath> out;
  if (!recorded) return out;
  out = std::move(recorded->former);
  out.insert(out.begin(), std::move(recorded->now));
  std::erase_if(out, [&](const ProgrammedDatapath& d) { return d.choice.name == now; });
  return out;
}

}  // namespace

asio::awaitable<Result<bool>> leave_node(host::Datapath& former, const std::string& layout,
                                         model::NodeConfig node) {
  const bool shared = former.hands_over_to(layout);
  Result<void> left;
  if (shared) {
    left = co_await former.hand_over(std::move(node));
  } else {
    left = co_await former.purge();
  }
  if (!left) co_return tl::unexpected(left.error());
  co_return shared;
}

DatapathChange::DatapathChange(std::filesystem::path state_dir, host::PluginHost& plugins,
                               Logger& log, const std::string& expected)
    : state_dir_(std::move(state_dir)), plugins_(plugins), log_(log) {
  if (const std::string fault = datapath_record_fault(state_dir_); !fault.empty()) {
    log_.warn(
        "which datapath has programmed this node before is not known: if it was another one than "
        "now, what it left stays in the kernel until `egw purge --datapath NAME`; who programs "
        "this node now is noted anew",
        {{"file", datapath_record(state_dir_).string()}, {"error", fault}});
  }
  for (const ProgrammedDatapath& former : former_of(read_datapath_record(state_dir_), expected)) {
    // What is wrong with one that cannot be opened is said when it is to leave.
    if (auto opened = open(former.choice)) opened_[former.choice.name] = std::move(*opened);
  }
}

Result<std::unique_ptr<host::Datapath>> DatapathChange::open(const PluginChoice& choice) {
  if (auto found = opened_.extract(choice.name)) return std::move(found.mapped());
  return plugins_.open_datapath(choice.name, choice.config, datapath_dir(state_dir_, choice.name),
                                state_dir_);
}

void DatapathChange::keep(const DatapathRecord& record) {
  if (auto kept = write_datapath_record(state_dir_, record); !kept) {
    log_.warn("cannot note the datapath in use", {{"error", kept.error().to_string()}});
  }
}

asio::awaitable<void> DatapathChange::run(DatapathRecord chosen, host::Datapath& datapath,
                                          model::NodeConfig node, std::function<void()> apply_all) {
  chosen.former = former_of(read_datapath_record(state_dir_), chosen.now.choice.name);
  keep(chosen);  // before anything is taken away: a start after a crash here goes on with it
  const std::string layout = datapath.layout();
  std::vector<ProgrammedDatapath> left;
  bool any = false;
  for (const ProgrammedDatapath& former : chosen.former) {
    const bool gone = co_await take_away(former, layout, chosen.now.choice.name, node);
    any |= gone;
    if (!gone) left.push_back(former);
  }
  if (any) apply_all();  // what both shared may have gone with it
  opened_.clear();
  chosen.former = std::move(left);
  auto observed = co_await datapath.observe();
  if (observed) chosen.now.holds = what_it_holds(std::move(*observed));
  keep(chosen);
}

asio::awaitable<bool> DatapathChange::take_away(const ProgrammedDatapath& former,
                                                const std::string& layout, const std::string& name,
                                                const model::NodeConfig& node) {
  const std::string& old = former.choice.name;
  auto opened = open(former.choice);
  if (!opened) {
    log_.warn(
        "the datapath used before cannot be opened, so what it programmed stays in the "
        "kernel: put its library back and restart the agent, or run `egw purge --datapath " +
            old + "` with it",
        {{"datapath", old},
         {"error", opened.error().to_string()},
         {"left", former.holds.empty() ? "not known" : former.holds.dump()}});
    co_return false;
  }
  const auto begin = std::chrono::steady_clock::now();
  model::NodeConfig its_node = node;
  const auto handed = co_await leave_node(**opened, layout, std::move(its_node));
  if (!handed) {
    log_.error(
        "the former datapath did not remove its state; it is asked again at the next start "
        "of the agent",
        {{"datapath", old}, {"error", handed.error().to_string()}});
    co_return false;
  }
  if (*handed) {
    log_.info("the former datapath has handed over; running connections go on",
              {{"from", old}, {"to", name}, {"ms", milliseconds_since(begin)}});
  } else {
    log_.warn(
        "the former datapath has removed everything of its own, the tunnel device if both "
        "used it, and the connections it had bound: packets of pods with a policy were "
        "dropped meanwhile and are until the next apply, at once; connections that had an "
        "EIP begin anew",
        {{"from", old}, {"to", name}, {"ms", milliseconds_since(begin)}});
  }
  co_return true;
}

}  // namespace egw::runtime
