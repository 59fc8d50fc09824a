import { describe, expect, test } from 'vitest'
import { type Refusal, type Reservation, type Settlement, Transactions } from '../../../src/smtp/transaction.ts'

/** Counts of a client, as the rules keep them. */
class Counts {
  readonly now = { messages: 0, recipients: 0 }

  readonly message = (): Reservation => this.#count('messages')
  readonly recipient = (): Reservation => this.#count('recipients')

  #count(what: 'messages' | 'recipients'): Reservation {
    this.now[what] += 1
    return {
      giveBack: () => {
        this.now[what] -= 1
      },
    }
  }
}

const NOTHING = { messages: 0, recipients: 0 }
const ONE = { messages: 1, recipients: 1 }

function start() {
  const counts = new Counts()
  const transactions = new Transactions()
  const reserve = (): Settlement => {
    const settlement = transactions.reserve(counts.message, counts.recipient)
    if ('rule' in settlement) throw new Error('refused')
    return settlement
  }
  return { counts: counts.now, transactions, reserve }
}

describe('a recipient', () => {
  test('counts, and its message with the first one; not if the server refuses it', () => {
    const { counts, reserve } = start()
    const [first, second] = [reserve(), reserve()]
    expect(counts).toEqual({ messages: 1, recipients: 2 })
    first.answered(true)
    second.answered(false)
    expect(counts).toEqual(ONE)
    first.answered(false)
    expect(counts).toEqual(NOTHING)
  })

  test('that a rule refuses leaves no message behind', () => {
    const counts = new Counts()
    const transactions = new Transactions()
    const refusal: Refusal = { rule: 'recipient', reply: '550 5.7.1 not for you' }
    expect(transactions.reserve(counts.message, () => refusal)).toBe(refusal)
    expect(counts.now).toEqual(NOTHING)
    expect(transactions.current.noRecipients).toBe('554 5.5.1 no valid recipients: not for you')
  })
})

test('a message is reported once, and only if the server has accepted it', () => {
  let accepted = 0
  const accept = (): void => {
    accepted += 1
  }
  const transactions = new Transactions()
  const message = (): Reservation => ({ giveBack: () => {}, accept })
  const send = (isDone: boolean): void => {
    for (let count = 0; count < 2; count += 1) transactions.reserve(message, () => ({ giveBack: () => {} }))
    transactions.passMessage().answered(isDone)
  }
  send(false)
  expect(accepted).toBe(0)
  send(true)
  send(true)
  expect(accepted).toBe(2)
})

describe('a command that begins a transaction', () => {
  test('returns the counts of the earlier one when the server accepts it', () => {
    const { counts, transactions, reserve } = start()
    reserve().answered(true)
    const settlement = transactions.begin()
    expect(counts).toEqual(ONE)
    settlement.answered(true)
    expect(counts).toEqual(NOTHING)
  })

  test('leaves the earlier one in force when the server refuses it', () => {
    const { counts, transactions, reserve } = start()
    reserve().answered(true)
    const settlement = transactions.begin()
    reserve()
    settlement.answered(false)
    expect(counts).toEqual({ messages: 1, recipients: 2 })
    transactions.current.giveBack()
    expect(counts).toEqual(NOTHING)
  })

  test('leaves recipients that the server has, when the server refuses the command', () => {
    const { transactions, reserve } = start()
    reserve().answered(true)
    transactions.begin().answered(false)
    const refusal: Refusal = { rule: 'recipient', reply: '550 5.7.1 not for you' }
    transactions.reserve(
      () => ({ giveBack: () => {} }),
      () => refusal,
    )
    expect(transactions.current.noRecipients).toBeUndefined()
  })

  test('returns the counts when the session ends before the answer', () => {
    const { counts, transactions, reserve } = start()
    reserve()
    transactions.begin().abandoned()
    expect(counts).toEqual(NOTHING)
  })
})

describe('a message', () => {
  test.each([
    { what: 'that the server accepts counts', end: (settlement: Settlement) => settlement.answered(true), counts: ONE },
    {
      what: 'that the server refuses does not count',
      end: (settlement: Settlement) => settlement.answered(false),
      counts: NOTHING,
    },
    { what: 'without an answer counts', end: (settlement: Settlement) => settlement.abandoned(), counts: ONE },
  ])('$what', ({ end, counts: expected }) => {
    const { counts, transactions, reserve } = start()
    reserve().answered(true)
    const settlement = transactions.passMessage()
    transactions.current.giveBack()
    end(settlement)
    expect(counts).toEqual(expected)
  })
})
