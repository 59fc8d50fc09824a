import { expect, it } from 'vitest'
import { QueryBatches } from '../../../src/database/query-batches.ts'

type Statement = {
  readonly queries: readonly number[]
  readonly signal: AbortSignal
  readonly answer: (answers: readonly (string | undefined)[]) => void
  readonly fail: (error: Error) => void
}

/** Batches of two statements with at most three queries each, answered by the test. */
function batches(): { readonly queue: QueryBatches<number, string>; readonly statements: readonly Statement[] } {
  const statements: Statement[] = []
  const queue = new QueryBatches<number, string>({
    statements: 2,
    most: 3,
    run: (queries, signal) =>
      new Promise((answer, fail) => {
        statements.push({ queries, signal, answer, fail })
      }),
  })
  return { queue, statements }
}

const queriesOf = (statements: readonly Statement[]): readonly (readonly number[])[] =>
  statements.map(({ queries }) => queries)

/** Lets the promises of a finished statement settle. */
const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

it('a single query is sent at once', async () => {
  const { queue, statements } = batches()
  const answer = queue.run(1)
  expect(queriesOf(statements)).toEqual([[1]])
  statements[0]?.answer(['yes'])
  expect(await answer).toBe('yes')
})

it('queries that arrive while every statement runs are sent together, at most three in a statement', async () => {
  const { queue, statements } = batches()
  const answers = [1, 2, 3, 4, 5, 6].map(query => queue.run(query))
  expect(queriesOf(statements)).toEqual([[1], [2]])

  statements[0]?.answer(['one'])
  await settle()
  expect(queriesOf(statements)).toEqual([[1], [2], [3, 4, 5]])

  statements[2]?.answer(['three', undefined, 'five'])
  await settle()
  expect(queriesOf(statements)).toEqual([[1], [2], [3, 4, 5], [6]])

  statements[1]?.answer(['two'])
  statements[3]?.answer(['six'])
  expect(await Promise.all(answers)).toEqual(['one', 'two', 'three', undefined, 'five', 'six'])
})

it('a query about an address whose statement has begun is sent in a new statement', async () => {
  const { queue, statements } = batches()
  void queue.run(7)
  void queue.run(7)
  void queue.run(7)
  statements[0]?.answer(['old'])
  await settle()
  expect(queriesOf(statements)).toEqual([[7], [7], [7]])
})

it('a statement that fails rejects its queries, and later queries are answered', async () => {
  const { queue, statements } = batches()
  const [first, , third, fourth] = [1, 2, 3, 4].map(query => queue.run(query))
  statements[0]?.fail(new Error('connection lost'))
  await expect(first).rejects.toThrow('connection lost')
  statements[2]?.fail(new Error('server away'))
  await expect(third).rejects.toThrow('server away')
  await expect(fourth).rejects.toThrow('server away')

  const later = queue.run(5)
  statements[3]?.answer(['yes'])
  expect(await later).toBe('yes')
})

it('a query whose caller aborts before its statement begins is not sent', async () => {
  const { queue, statements } = batches()
  const [timeLimit, closed] = [new AbortController(), new AbortController()]
  void queue.run(1)
  void queue.run(2)
  const waiting = queue.run(3, timeLimit.signal)
  void queue.run(4)
  timeLimit.abort(new Error('no answer within 5000 ms'))
  await expect(waiting).rejects.toThrow('no answer within 5000 ms')

  closed.abort(new Error('closed'))
  await expect(queue.run(9, closed.signal)).rejects.toThrow('closed')

  statements[0]?.answer(['yes'])
  await settle()
  expect(queriesOf(statements)).toEqual([[1], [2], [4]])
})

it('a statement is aborted when its last caller aborts, and not before', async () => {
  const { queue, statements } = batches()
  void queue.run(1)
  void queue.run(2)
  const [first, second] = [new AbortController(), new AbortController()]
  const [third, fourth] = [queue.run(3, first.signal), queue.run(4, second.signal)]
  statements[0]?.answer(['yes'])
  await settle()

  first.abort(new Error('closed'))
  await expect(third).rejects.toThrow('closed')
  expect(statements[2]?.signal.aborted).toBe(false)
  second.abort(new Error('closed'))
  await expect(fourth).rejects.toThrow('closed')
  expect(statements[2]?.signal.aborted).toBe(true)
})

it('the second statement answers queries while the first one hangs', async () => {
  const { queue, statements } = batches()
  void queue.run(1)
  for (const query of [2, 3, 4]) {
    const answer = queue.run(query)
    statements.at(-1)?.answer(['yes'])
    expect(await answer).toBe('yes')
  }
  expect(statements[0]?.signal.aborted).toBe(false)
})
