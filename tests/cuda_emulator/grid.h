// Run a grid: blocks one after the other, the threads of a block as fibers that change
// places only where CUDA lets them wait for each other.
//
// Schedules differ by `order`, of blocks and of threads: a kernel that leans on one gives
// other answers under another. What no thread can get out of, or enters wrongly, ends the
// launch with a message that names the thread and its line.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "fibers.h"

namespace emulator {

struct Triple {
  unsigned x = 1, y = 1, z = 1;
};

enum class State { ready, waiting, done };
enum Order { FORWARD, REVERSE, SHUFFLED };

struct Thread {
  Fiber fiber;
  Triple index;
  unsigned number = 0;
  State state = State::ready;
  bool at_barrier = false;
  const char* what = "";
  const char* file = "";
  int line = 0;
};

constexpr std::size_t PAYLOAD = 64;

// Where the lanes of a mask meet.
struct Meeting {
  uint32_t here = 0;
  std::string what;
  uint64_t turn = 0;
  alignas(16) char in[32][PAYLOAD];
  alignas(16) char out[32][PAYLOAD];
};

struct Grid {
  std::deque<Thread> threads;
  std::vector<std::map<uint32_t, Meeting>> warps;
  Thread* current = nullptr;
  Home home;
  Triple block, blocks, size;
  unsigned alive = 0, arrived = 0;
  unsigned slept = 0;
  uint64_t barrier_turn = 0;
  int counted = 0, last_count = 0, last_alive = 0;
  int barrier_line = 0;
  Order order = FORWARD;
  std::mt19937 random{1};
  void (*body)(void**) = nullptr;
  void** arguments = nullptr;
  std::string error;
};

inline Grid& grid() {
  static Grid one;
  return one;
}

inline void yield(bool for_good = false) {
  Grid& g = grid();
  g.home.leave(g.current->fiber, for_good);
}

inline std::string place(const Thread& t) {
  return "thread " + std::to_string(t.number) + " in " + t.what + " at " + t.file + ":" +
         std::to_string(t.line);
}

// End the launch from within a thread; its fibers are dropped as they are.
[[noreturn]] inline void fail(const std::string& why) {
  Grid& g = grid();
  g.error = why + "; " + place(*g.current);
  g.home.leave(g.current->fiber, true);
  std::abort();
}

inline void note(const char* what, const char* file, int line) {
  Thread& t = *grid().current;
  t.what = what;
  t.file = file;
  t.line = line;
}

// How often threads may look in vain, while none does anything else.
constexpr unsigned LOOKS = 100000;

// Let the other threads of the block run; blocks before this one have ended.
inline void sleep(const char* file, int line) {
  note("__nanosleep", file, line);
  if (++grid().slept > LOOKS) fail("deadlock: threads look for what none of them does");
  yield();
}

inline void open_barrier() {
  Grid& g = grid();
  g.last_count = g.counted;
  g.last_alive = static_cast<int>(g.alive);
  g.counted = 0;
  g.arrived = 0;
  ++g.barrier_turn;
  for (Thread& t : g.threads)
    if (t.at_barrier) {
      t.at_barrier = false;
      t.state = State::ready;
    }
}

// Wait for all threads of the block that have not ended; how many came with `predicate`.
inline int barrier(bool predicate, const char* file, int line) {
  Grid& g = grid();
  Thread& t = *g.current;
  note("__syncthreads", file, line);
  if (g.arrived > 0 && g.barrier_line != line)
    fail("threads of one block wait at different barriers, also at line " +
         std::to_string(g.barrier_line));
  g.barrier_line = line;
  g.counted += predicate;
  const uint64_t turn = g.barrier_turn;
  if (++g.arrived == g.alive) {
    open_barrier();
  } else {
    t.at_barrier = true;
    t.state = State::waiting;
    while (g.barrier_turn == turn) yield();
  }
  return g.last_count;
}

// Bring `mine` to the lanes of `mask`; the last one there computes what each gets.
template <typename In, typename Out, typename Compute>
Out meet(uint32_t mask, const char* what, const In& mine, Compute compute, const char* file,
         int line) {
  static_assert(sizeof(In) <= PAYLOAD && sizeof(Out) <= PAYLOAD, "too large for a meeting");
  Grid& g = grid();
  Thread& t = *g.current;
  const unsigned lane = t.number % 32, warp = t.number / 32;
  note(what, file, line);
  if (!(mask >> lane & 1)) fail("a lane calls with a mask that does not name it");
  Meeting& meeting = g.warps[warp][mask];
  const std::string here = std::string(what) + ":" + std::to_string(line);
  if (meeting.here == 0) meeting.what = here;
  if (meeting.what != here) fail("lanes of one mask meet in different calls, " + meeting.what);
  std::memcpy(meeting.in[lane], &mine, sizeof mine);
  meeting.here |= 1u << lane;
  const uint64_t turn = meeting.turn;
  if (meeting.here == mask) {
    compute(meeting);
    meeting.here = 0;
    ++meeting.turn;
    for (unsigned i = warp * 32; i < std::min<std::size_t>(warp * 32 + 32, g.threads.size()); ++i)
      if (mask >> (i % 32) & 1 && g.threads[i].state == State::waiting)
        g.threads[i].state = State::ready;
  } else {
    t.state = State::waiting;
    while (meeting.turn == turn) yield();
  }
  Out out;
  std::memcpy(&out, meeting.out[lane], sizeof out);
  return out;
}

template <typename T>
T& in(Meeting& m, int lane) {
  return *reinterpret_cast<T*>(m.in[lane]);
}
template <typename T>
T& out(Meeting& m, int lane) {
  return *reinterpret_cast<T*>(m.out[lane]);
}

inline void thread_entry() {
  Grid& g = grid();
  g.home.arrived(g.current->fiber);
  g.body(g.arguments);
  g.current->state = State::done;
  --g.alive;
  yield(true);
}

inline void begin_block() {
  Grid& g = grid();
  const unsigned n = g.size.x * g.size.y * g.size.z;
  while (g.threads.size() < n) g.threads.emplace_back();
  while (g.threads.size() > n) g.threads.pop_back();
  g.warps.assign((n + 31) / 32, {});
  g.alive = n;
  g.arrived = 0;
  g.slept = 0;
  for (unsigned i = 0; i < n; ++i) {
    Thread& t = g.threads[i];
    t.number = i;
    t.index = {i % g.size.x, i / g.size.x % g.size.y, i / g.size.x / g.size.y};
    t.state = State::ready;
    t.at_barrier = false;
    t.fiber.begin(thread_entry);
  }
}

inline std::string stuck() {
  std::string why = "deadlock: threads wait for others that are elsewhere or have ended";
  int shown = 0;
  for (const Thread& t : grid().threads)
    if (t.state == State::waiting && shown++ < 3) why += "; " + place(t);
  return why;
}

inline std::vector<unsigned> sequence(unsigned n) {
  std::vector<unsigned> found(n);
  Grid& g = grid();
  for (unsigned i = 0; i < n; ++i) found[i] = g.order == REVERSE ? n - 1 - i : i;
  if (g.order == SHUFFLED) std::shuffle(found.begin(), found.end(), g.random);
  return found;
}

inline void run_block() {
  Grid& g = grid();
  begin_block();
  auto turns = sequence(g.threads.size());
  while (g.alive > 0) {
    bool ran = false;
    if (g.order == SHUFFLED) std::shuffle(turns.begin(), turns.end(), g.random);
    for (unsigned i : turns) {
      Thread& t = g.threads[i];
      if (t.state != State::ready) continue;
      ran = true;
      g.current = &t;
      g.home.enter(t.fiber);
      if (t.state != State::ready) g.slept = 0;
      if (!g.error.empty()) return;
      if (t.state == State::done && g.alive > 0 && g.arrived == g.alive) open_barrier();
    }
    if (!ran) {
      g.error = stuck();
      return;
    }
  }
}

}  // namespace emulator
