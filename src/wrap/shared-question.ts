import type { IpAddress } from '../wire/ip-address.ts'
import type { AskGrant, RelayGrant } from './decision.ts'

/**
 * Those who ask about one address while a question about it is on its way share the answer. Nothing is kept after it: a revoked address is
 * refused at its next connection. All askers have the same time limit, so that of the first never outlasts the others by more than their distance.
 */
export function shareQuestions(ask: AskGrant): AskGrant {
  const open = new Map<IpAddress, Promise<RelayGrant | undefined>>()
  return (ip, signal) => {
    const known = open.get(ip)
    if (known !== undefined) return known
    const question = ask(ip, signal).finally(() => open.delete(ip))
    open.set(ip, question)
    return question
  }
}
