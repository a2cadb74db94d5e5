// What a plan found and moved, told (plan_teller.hpp).
#include "egw/runtime/plan_teller.hpp"

#include <algorithm>

#include "egw/model/meta.hpp"

namespace egw::runtime {
using model::Kind;

namespace {

constexpr std::size_t kMovesKept = 100;
constexpr std::int64_t kNoticeGapMs = 60'000;  // the same words about the same object again

}  // namespace

PlanTeller::PlanTeller(Logger& log, Metrics& metrics, EventRecorder& events, Clock& clock,
                       const model::World& world)
    : log_(log), metrics_(metrics), events_(events), clock_(clock), world_(world) {}

void PlanTeller::tell_made(const core::Plan& plan, const WriteTarget& target,
                           std::int64_t planned_ms) {
  for (const auto& notice : plan.notices) {
    if (notice.kind == target.kind && notice.key == target.key) say(notice);
  }
  if (target.kind == Kind::kEgressGateway) {
    tell_moves(plan, target.key.name, clock_.steady_ms() - planned_ms);
  }
}

void PlanTeller::tell_rest(const core::Plan& plan, const std::set<WriteTarget>& targets) {
  const std::int64_t now = clock_.steady_ms();
  std::erase_if(noticed_, [&](const auto& entry) { return now - entry.second >= kNoticeGapMs; });
  for (const auto& notice : plan.notices) {
    if (targets.contains(WriteTarget{notice.kind, notice.key})) continue;
    const std::string words = notice.reason + '\n' + notice.key.to_string() + '\n' + notice.message;
    if (noticed_.emplace(words, now).second) say(notice);
  }
}

nlohmann::json PlanTeller::moves() const {
  nlohmann::json moves = nlohmann::json::array();
  for (const auto& past : moves_) {
    moves.push_back({{"time", model::format_micro_time(past.wall_ms)},
                     {"gateway", past.move.gateway},
                     {"eip", past.move.eip},
                     {"from", past.move.from},
                     {"to", past.move.to},
                     {"why", past.move.why},
                     {"epoch", past.move.epoch},
                     {"planned", past.move.planned},
                     {"silentMs", past.move.silent_ms},
                     {"unservedMs", past.move.unserved_ms},
                     {"tookMs", past.took_ms}});
  }
  return moves;
}

void PlanTeller::say(const core::Notice& notice) {
  const auto level =
      notice.level == core::Notice::Level::kWarning ? LogLevel::kWarn : LogLevel::kInfo;
  const char* key = notice.kind == Kind::kEgressTunnel ? "node" : "object";
  log_.log(level, notice.message,
           {{"reason", notice.reason},
            {"kind", model::info(notice.kind).kind},
            {key, notice.key.to_string()}});
  metrics_.notice(notice.reason);
  if (notice.reason == "EipMoved") return;  // tell_moves
  events_.record({notice.kind,
                  notice.key,
                  level == LogLevel::kWarn,
                  "Plan",
                  notice.reason,
                  notice.message,
                  {},
                  uid_of(notice.kind, notice.key)});
}

void PlanTeller::tell_moves(const core::Plan& plan, const std::string& gateway,
                            std::int64_t took_ms) {
  std::map<std::string, Way> ways;
  for (const auto& move : plan.moves) {
    if (move.gateway != gateway) continue;
    moves_.push_front({clock_.wall_ms(), move, took_ms});
    if (moves_.size() > kMovesKept) moves_.pop_back();
    if (move.to.empty()) continue;  // EipUnplaced has said it
    Way& way = ways[move.from + "\n" + move.to + "\n" + move.why];
    way.eips.push_back(move.eip);
    way.unserved_ms = std::max(way.unserved_ms, move.unserved_ms);
    way.move = &move;
    log_.info("EIP moved", {{"gateway", move.gateway},
                            {"eip", move.eip},
                            {"from", move.from},
                            {"to", move.to},
                            {"why", move.why},
                            {"unservedMs", std::to_string(move.unserved_ms)}});
    metrics_.moved(move.why);
  }
  for (const auto& [words, way] : ways) record(way, took_ms);
}

void PlanTeller::record(const Way& way, std::int64_t took_ms) {
  const core::Move& move = *way.move;
  std::string detail = "(" + std::to_string(took_ms) + " ms to store it";
  if (move.planned) {
    detail += ", handed over";
  } else if (move.silent_ms >= 0) {
    detail += ", " + std::to_string(move.silent_ms) + " ms after " + move.from + " was heard last";
  }
  if (way.unserved_ms > 0) detail += ", unserved for " + std::to_string(way.unserved_ms) + " ms";
  events_.record(
      {Kind::kEgressGateway,
       {"", move.gateway},
       false,
       "Move",
       "EipMoved",
       core::some_of(way.eips) + " moved from " + move.from + " to " + move.to + ": " + move.why,
       detail + ")",
       uid_of(Kind::kEgressGateway, {"", move.gateway})});
}

// Empty when it is not there any more.
std::string PlanTeller::uid_of(Kind kind, const model::Key& key) const {
  const auto find = [](const auto& objects, const auto& name) {
    const auto found = objects.find(name);
    return found == objects.end() ? std::string() : found->second.meta.uid;
  };
  switch (kind) {
    case Kind::kEgressGateway:
      return find(world_.gateways, key.name);
    case Kind::kEgressPolicy:
    case Kind::kEgressClusterPolicy:
      return find(world_.policies, key);
    case Kind::kEgressTunnel:
      return find(world_.tunnels, key.name);
    case Kind::kEgressClusterInfo:
      return find(world_.cluster_infos, key.name);
    case Kind::kNode:
      return find(world_.nodes, key.name);
    default:
      return {};
  }
}

}  // namespace egw::runtime
