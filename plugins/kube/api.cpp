// See api.hpp.
#include "api.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <optional>
#include <random>
#include <utility>

namespace egw::kube {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

namespace {
// Streams that bring nothing for so long are asked after: whoever only watches would not notice a
// server that has stopped. Whoever writes heartbeats needs no such question.
constexpr auto kQuiet = 10s;
constexpr auto kLook = 2500ms;
constexpr auto kAskDeadline = 3000ms;
// Of a request that is repeated: the first pause, and what the last attempt must have left.
constexpr auto kFirstPause = 50ms, kLastAttempt = 100ms;
// While somebody rests: one question for all of them, about every 0.75 s.
constexpr std::int64_t kProbeMs[] = {500, 1000};
// For so long after an outage the API server may refuse what it takes in a moment: 403 before it
// has read its roles, 429 before it has read a kind's objects.
constexpr auto kSettling = 30s;
constexpr auto kLongestSettling = 500ms;
constexpr int kUnauthorized = 401;
// Between two attempts with credentials that are refused: a heartbeat's usual period.
constexpr milliseconds kLongestHold = 5s;

milliseconds until_probe() {
  thread_local std::minstd_rand random(std::random_device{}());
  return milliseconds(
      std::uniform_int_distribution<std::int64_t>(kProbeMs[0], kProbeMs[1])(random));
}

bool worth_repeating(const HttpAnswer& answer) {
  if (answer.stopped || answer.no_credentials) return false;
  if (answer.code == 429) return true;
  if (answer.code == 503) return answer.retry_after.count() > 0;
  return answer.code == 0 && !answer.sent;
}
}  // namespace

milliseconds left_until(steady_clock::time_point until) {
  return std::max<milliseconds>(10ms, std::chrono::ceil<milliseconds>(until - steady_clock::now()));
}

Api::Api(Access access, const sdk::Host& host)
    : access_(std::move(access)),
      host_(host),
      credentials_(access_),
      streams_(access_.server, HttpClient::Speaks::kHttp2),
      requests_(access_.server, HttpClient::Speaks::kHttp1) {
  requests_.tell_of_death([this](steady_clock::time_point since) { streams_.doubt(since); });
  keeper_ = std::thread([this] { keep_watch(); });
}

Api::~Api() {
  stop_.request();
  wake();
  keeper_.join();
}

HttpAnswer Api::once(HttpRequest request, const Stop* stop) {
  HttpClient& client = request.on_data ? streams_ : requests_;
  return once(client, std::move(request), stop);
}

HttpAnswer Api::once(HttpClient& client, HttpRequest request, const Stop* stop) {
  const auto until = steady_clock::now() + request.deadline;
  if (request.on_data) request.on_begin = [this] { credentials_.accepted(); };
  HttpAnswer answer;
  std::optional<Credentials> before;
  for (int attempt = 0; attempt < 2; ++attempt) {
    sdk::Outcome<Credentials> credentials = credentials_.get(until);
    if (!credentials.ok()) {
      failed_ = true;
      answer = {};
      answer.error = credentials.status().text();
      answer.no_credentials = true;
      return answer;
    }
    if (before == *credentials) break;  // there are no others
    if (attempt == 0 && credentials_.held(*credentials, longest_hold())) {
      failed_ = true;
      answer.code = kUnauthorized;
      return answer;
    }
    request.deadline = left_until(until);
    answer = client.call(request, *credentials, stop);
    before = std::move(*credentials);
    if (answer.code != kUnauthorized) break;
    if (attempt == 0) credentials_.refused();
  }
  if (answer.code == kUnauthorized) {
    credentials_.refused_again(*before);
  } else if (answer.code != 0) {
    credentials_.accepted();
  }
  if (answer.stopped) return answer;
  failed_ = answer.code == 0 || answer.code == kUnauthorized;
  // The end of a stream says nothing about now.
  if (!request.on_data || answer.code / 100 != 2) outage_.note(answer.code);
  return answer;
}

milliseconds Api::longest_hold() const {
  return outage_.back_within(kSettling) ? kLongestSettling : kLongestHold;
}

HttpAnswer Api::call(HttpRequest request, Stop* stop) {
  const auto until = steady_clock::now() + request.deadline;
  BackOff back_off(kFirstPause, 2000ms);
  for (;;) {
    const auto began = steady_clock::now();
    HttpAnswer answer = once(request, stop);
    if (!worth_repeating(answer)) return answer;
    const auto left = std::chrono::floor<milliseconds>(until - steady_clock::now());
    const milliseconds longest = left - answer.retry_after - kLastAttempt;
    if (longest < kFirstPause) return answer;
    Refusal refusal{true, answer.retry_after, kFirstPause, began};
    back_off.limit(longest);
    if (rest(refusal, back_off, stop != nullptr ? *stop : stop_)) return answer;
    request.deadline = left_until(until);
  }
}

bool Api::rest(const Refusal& refusal, BackOff& back_off, Stop& stop) {
  if (outage_.back_within(kSettling)) back_off.limit(kLongestSettling);
  const milliseconds pause = back_off.next(refusal.retry_after);
  if (!refusal.by_outage) return stop.wait(pause);
  const milliseconds least = refusal.retry_after + refusal.least;
  return outage_.rest(std::min(least, pause), pause, refusal.attempt, stop);
}

sdk::Outcome<nlohmann::json> Api::object(HttpRequest request, const Asked& asked, Stop* stop) {
  const HttpAnswer answer = call(std::move(request), stop);
  if (sdk::Status s = status_of(answer, asked); !s.ok()) return s;
  auto out = parse_object(answer.body);
  if (out.ok()) return out;
  sdk::Status status = out.status();
  status.what = asked.object.empty() ? asked.resource : asked.object;
  return status;
}

sdk::Status Api::alive(milliseconds deadline) {
  HttpRequest request;
  request.path = "/livez";
  request.deadline = deadline;
  const HttpAnswer answer = once(request);
  // Whatever it says about itself or about us, it is there.
  if (answer.code != 0 && answer.code != kUnauthorized && answer.code < 500) return sdk::ok();
  return status_of(answer, {"health check", access_.server.shown(), ""});
}

void Api::keep_watch() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  while (!stop_.wait(outage_.awaited() ? until_probe() : milliseconds(kLook))) {
    HttpRequest request;
    request.deadline = kAskDeadline;
    if (outage_.awaited()) {
      request.path = "/readyz";
      (void)once(requests_, request, &stop_);  // whoever rests goes on when it is good
    }
    if (streams_.streams() == 0 || steady_clock::now() - streams_.last_received() < kQuiet)
      continue;
    request.path = "/livez";
    (void)once(streams_, request, &stop_);  // without an answer, the client gives the connection up
  }
}

}  // namespace egw::kube
