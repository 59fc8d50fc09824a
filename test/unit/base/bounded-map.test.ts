import { fc, test as property } from '@fast-check/vitest'
import { expect, test } from 'vitest'
import { BoundedMap } from '../../../src/base/bounded-map.ts'

test('an entry above the limit removes the oldest', () => {
  const map = new BoundedMap<string, number>(2)
  map.set('a', 1).set('b', 2).set('c', 3)
  expect([...map]).toEqual([
    ['b', 2],
    ['c', 3],
  ])
})

test('set keeps the age of an entry, and renew makes it the newest', () => {
  const map = new BoundedMap<string, number>(2)
  map.set('a', 1).set('b', 2).set('a', 3)
  map.set('c', 4)
  expect([...map.keys()]).toEqual(['b', 'c'])
  map.renew('b', 5)
  map.set('d', 6)
  expect([...map]).toEqual([
    ['b', 5],
    ['d', 6],
  ])
})

property.prop([fc.integer({ min: 1, max: 5 }), fc.array(fc.tuple(fc.nat(8), fc.boolean()))])(
  'holds the keys that were renewed last, and at most as many as its bound',
  (most, steps) => {
    const map = new BoundedMap<number, number>(most)
    let model: readonly number[] = []
    for (const [key, isRenewed] of steps) {
      if (isRenewed) map.renew(key, key)
      else map.set(key, key)
      if (isRenewed || !model.includes(key)) model = [...model.filter(other => other !== key), key].slice(-most)
      expect([...map.keys()]).toEqual(model)
    }
  },
)
