import { formatDeviceCounts, parseDeviceCounts } from '../../../src/wire/services/gate-report.ts'
import { formatRelayAnswer, parseRelayAnswer } from '../../../src/wire/services/relay-query.ts'
import { type FuzzTarget, promise } from './fuzz-target.ts'
import { mutated } from './mutation.ts'

const ANSWERS = [
  'yes until=1764000000 user=ann%40example.org',
  'yes until=1764000000',
  'no',
  'no 550 5.7.1 the device may not send',
  'later 450 4.7.1 the rate is reached',
  'unknown',
  'counts messages_hour=3 messages_day=9 recipients_hour=3 recipients_day=12',
]

/** Answers of the query service, which exec mode and the commands read. */
export const relayAnswers: FuzzTarget = {
  name: 'relay-answers',
  attempt(random) {
    const line = mutated(random, random.pick(ANSWERS), ANSWERS)
    const counts = parseDeviceCounts(line)
    const sameCounts = counts === undefined || parseDeviceCounts(formatDeviceCounts(counts))
    promise(JSON.stringify(sameCounts) === JSON.stringify(counts ?? true), 'other counts', line)
    const answer = parseRelayAnswer(line)
    if (answer === undefined) return
    const again = parseRelayAnswer(formatRelayAnswer(answer))
    promise(JSON.stringify(again) === JSON.stringify(answer), 'another answer', line)
    if (answer.verdict === 'yes') {
      promise(line.startsWith('yes until='), 'a relay out of nothing', line)
      promise(!answer.login?.includes('\0'), 'a NUL in a login', line)
    } else if ('reply' in answer) promise(!/[\r\n]/.test(answer.reply ?? ''), 'a reply of several lines', line)
  },
}
